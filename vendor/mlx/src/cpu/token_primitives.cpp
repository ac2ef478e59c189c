#include "cpu/token_primitives.h"

#include <cstring>

#include "cpu/attention.h"
#include "cpu/layer_primitive.h"
#include "cpu/product.h"
#include "cpu/rows.h"

namespace mlxlm::cpu {
namespace {

// A matrix while an operation runs.
struct Held {
  Product product;
  array w;
  std::optional<array> scales;
  std::optional<array> biases;
  std::optional<array> bias;

  // out (N) = w x + bias
  void multiply(const void* x, void* out) const {
    int64_t first = 0;
    auto data = [](const std::optional<array>& a) { return a ? a->data<void>() : nullptr; };
    run(product, {{x, out, w.data<void>(), data(scales), data(biases), &first, &first, 1}});
    if (bias) {
      row_kernels().add(product.type, out, data(bias), out, product.n);
    }
  }
};

Held hold(
    const MatrixLayout& layout, std::vector<array>::const_iterator next, mx::Dtype dtype,
    mx::cpu::CommandEncoder& encoder) {
  auto take = [&] { return array::unsafe_weak_copy(in_order(*next++, encoder)); };
  auto& packing = layout.packing;
  Held held = {{}, take(), {}, {}, {}};
  if (packing) {
    held.scales = take();
    if (packing->is_affine()) {
      held.biases = take();
    }
  }
  if (layout.biased) {
    held.bias = take();
  }
  auto type = float_of(dtype);
  auto& product = held.product;
  product.type = type;
  product.format = packing ? *format_of(*packing)
      : type == Float::f32 ? Format::f32
      : type == Float::f16 ? Format::f16
                           : Format::bf16;
  product.group = packing ? packing->group : 0;
  product.transposed = true;
  product.n = held.w.shape(0);
  product.k = packing ? static_cast<int64_t>(held.w.shape(1)) * 32 / packing->bits : held.w.shape(1);
  product.row_bytes = held.w.shape(1) * static_cast<int64_t>(held.w.itemsize());
  product.x_step = 1;
  return held;
}

// Memory for a row between two products.
array row_for(int64_t count, mx::Dtype dtype, mx::cpu::CommandEncoder& encoder) {
  array row({static_cast<int>(count)}, dtype, nullptr, {});
  allocate(row);
  encoder.add_temporary(row);
  return array::unsafe_weak_copy(row);
}

// Inputs: x, the joint matrix, the last.
class FeedToken : public LayerPrimitive {
 public:
  FeedToken(mx::Stream stream, Gate kind, MatrixLayout joint, MatrixLayout last)
      : LayerPrimitive(stream), kind_(kind), joint_(std::move(joint)), last_(std::move(last)) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    auto& out = outputs[0];
    allocate(out);
    auto x = array::unsafe_weak_copy(in_order(inputs[0], encoder));
    auto joint = hold(joint_, inputs.begin() + 1, x.dtype(), encoder);
    auto last = hold(last_, inputs.begin() + 1 + joint_.arrays(), x.dtype(), encoder);
    auto entering = row_for(joint.product.n, x.dtype(), encoder);
    auto opened = row_for(last.product.k, x.dtype(), encoder);
    encoder.dispatch([x = std::move(x), out = array::unsafe_weak_copy(out), joint = std::move(joint),
                      last = std::move(last), entering = std::move(entering), opened = std::move(opened),
                      kind = kind_]() mutable {
      joint.multiply(x.data<void>(), entering.data<void>());
      int64_t count = last.product.k;
      auto at = [](array& a, int64_t i) { return a.data<char>() + i * static_cast<int64_t>(a.itemsize()); };
      auto& kernels = row_kernels();
      parallel_for((count + piece - 1) / piece, [&](int64_t part) {
        int64_t from = part * piece;
        kernels.gate(
            kind, joint.product.type, at(entering, from), at(entering, count + from), at(opened, from),
            std::min(piece, count - from));
      });
      last.multiply(opened.data<void>(), out.data<void>());
    });
  }

  const char* name() const override {
    return "CpuFeedToken";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& feed = static_cast<const FeedToken&>(other);
    return kind_ == feed.kind_ && joint_ == feed.joint_ && last_ == feed.last_;
  }

 private:
  Gate kind_;
  MatrixLayout joint_;
  MatrixLayout last_;
};

// Inputs: x, the joint matrix, the last, keys, values, weights of queries and keys where heads are normed, wavelengths
// where there is no base.
class AttendToken : public LayerPrimitive {
 public:
  AttendToken(mx::Stream stream, Heads heads, MatrixLayout joint, MatrixLayout last)
      : LayerPrimitive(stream), heads_(heads), joint_(std::move(joint)), last_(std::move(last)) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    auto& out = outputs[0];
    allocate(out);
    auto x = array::unsafe_weak_copy(in_order(inputs[0], encoder));
    auto next = inputs.begin() + 1;
    auto joint = hold(joint_, next, x.dtype(), encoder);
    next += joint_.arrays();
    auto last = hold(last_, next, x.dtype(), encoder);
    next += last_.arrays();
    auto keys = array::unsafe_weak_copy(*next++);
    auto values = array::unsafe_weak_copy(*next++);
    std::vector<array> weights;
    while (heads_.normed && weights.size() < 2) {
      weights.push_back(array::unsafe_weak_copy(in_order(*next++, encoder)));
    }
    auto freqs = next == inputs.end() ? std::nullopt : std::optional(array::unsafe_weak_copy(*next));
    auto entering = row_for(joint.product.n, x.dtype(), encoder);
    auto queries = row_for(last.product.k, x.dtype(), encoder);
    auto attended = row_for(last.product.k, x.dtype(), encoder);
    encoder.dispatch([x = std::move(x), out = array::unsafe_weak_copy(out), joint = std::move(joint),
                      last = std::move(last), keys = std::move(keys), values = std::move(values),
                      weights = std::move(weights), freqs = std::move(freqs), entering = std::move(entering),
                      queries = std::move(queries), attended = std::move(attended), heads = heads_]() mutable {
      joint.multiply(x.data<void>(), entering.data<void>());
      place(heads, entering, weights, freqs, queries, keys, values);
      attend(heads, queries, keys, values, attended);
      last.multiply(attended.data<void>(), out.data<void>());
    });
  }

  const char* name() const override {
    return "CpuAttendToken";
  }
  // It writes to its inputs: two that look the same are not one.
  bool is_equivalent(const mx::Primitive&) const override {
    return false;
  }

 private:
  // A head's row `at` of keys or values.
  static char* row_at(array& rows, int head, int at) {
    return rows.data<char>() + (head * rows.strides(1) + at * rows.strides(2)) * static_cast<int64_t>(rows.itemsize());
  }

  // Queries to their buffer, the token's key and value to row `used`, turned.
  static void place(
      const Heads& heads, array& entering, const std::vector<array>& weights, const std::optional<array>& freqs,
      array& queries, array& keys, array& values) {
    auto inverse = inverse_frequencies(heads.rotated, heads.angles, freqs ? &*freqs : nullptr);
    auto table = rotation_table(std::move(inverse), heads.angles.scale, heads.angles.offset, 1);
    auto type = float_of(entering.dtype());
    Rotation rotation = {type, heads.dims, heads.rotated, table->cosines.data(), table->sines.data()};
    auto& kernels = row_kernels();
    for (int row = 0; row < heads.heads + heads.kv_heads; ++row) {
      bool of_query = row < heads.heads;
      Norm norm = {type, heads.dims, heads.normed ? weights[of_query ? 0 : 1].data<void>() : nullptr, heads.eps};
      auto to = of_query ? row_of(queries, row, heads.dims) : row_at(keys, row - heads.heads, heads.used);
      kernels.rotate(rotation, heads.normed ? &norm : nullptr, row_of(entering, row, heads.dims), to);
    }
    for (int head = 0; head < heads.kv_heads; ++head) {
      auto from = row_of(entering, heads.heads + heads.kv_heads + head, heads.dims);
      std::memcpy(row_at(values, head, heads.used), from, heads.dims * entering.itemsize());
    }
  }

  static void attend(const Heads& heads, array& queries, array& keys, array& values, array& attended) {
    Attention attention = {};
    attention.type = float_of(queries.dtype());
    attention.batch = 1;
    attention.heads = heads.heads;
    attention.group = heads.heads / heads.kv_heads;
    attention.length = 1;
    attention.total = heads.used + 1;
    attention.dims = heads.dims;
    attention.scale = heads.scale;
    attention.q = queries.data<void>();
    attention.k = keys.data<void>();
    attention.v = values.data<void>();
    attention.out = attended.data<void>();
    attention.q_strides[1] = attention.out_strides[1] = heads.dims;
    for (int axis = 0; axis < 3; ++axis) {
      attention.k_strides[axis] = keys.strides(axis);
      attention.v_strides[axis] = values.strides(axis);
    }
    run(attention);
  }

  Heads heads_;
  MatrixLayout joint_;
  MatrixLayout last_;
};

// Whether it is a matrix (·, count) that kernels read, for rows of this kind.
bool fits(const Matrix& matrix, int64_t count, mx::Dtype dtype) {
  auto& [arrays, layout] = matrix;
  auto& packing = layout.packing;
  if (arrays.size() != layout.arrays() || arrays[0].ndim() != 2 || (packing && !format_of(*packing))) {
    return false;
  }
  auto& w = arrays[0];
  int64_t width = packing ? static_cast<int64_t>(w.shape(1)) * 32 / packing->bits : w.shape(1);
  if (width != count || count == 0 || w.shape(0) == 0 || w.dtype() != (packing ? mx::uint32 : dtype)) {
    return false;
  }
  size_t numbers = packing ? layout.arrays() - layout.biased : 1;
  for (size_t i = 1; i < numbers; ++i) {
    auto& a = arrays[i];
    bool same_kind = packing->is_affine() ? a.dtype() == dtype : a.dtype() == mx::uint8;
    if (!same_kind || a.ndim() != 2 || a.shape(0) != w.shape(0) || a.shape(1) != width / packing->group) {
      return false;
    }
  }
  // MLX adds the bias of a plain matrix before it rounds.
  bool bias_fits = !layout.biased ||
      (packing && arrays.back().ndim() == 1 && arrays.back().shape(0) == w.shape(0) && arrays.back().dtype() == dtype);
  return bias_fits && std::none_of(arrays.begin(), arrays.end(), [](const array& a) { return traced(a); });
}

bool is_token(const array& x, mx::StreamOrDevice s) {
  return takes(s) && x.ndim() == 3 && x.shape(0) == 1 && x.shape(1) == 1 && is_known(x.dtype()) && !traced(x);
}

std::vector<array> together(const array& x, const Matrix& joint, const Matrix& last) {
  std::vector<array> inputs = {x};
  inputs.insert(inputs.end(), joint.arrays.begin(), joint.arrays.end());
  inputs.insert(inputs.end(), last.arrays.begin(), last.arrays.end());
  return inputs;
}

} // namespace

size_t MatrixLayout::arrays() const {
  return 1 + (packing ? packing->is_affine() ? 2 : 1 : 0) + biased;
}

Matrix::Matrix(std::vector<array> given, const std::vector<int>& how) : arrays(std::move(given)) {
  static const char* modes[] = {"affine", "mxfp4", "mxfp8", "nvfp4"};
  if (how.size() != 4 || how[2] < 0 || how[2] > 3) {
    throw std::invalid_argument("a matrix is described by its group, bits, mode, and whether it has a bias");
  }
  layout.biased = how[3] != 0;
  if (how[0] > 0) {
    layout.packing = quantization(how[0], how[1], modes[how[2]], true);
  }
}

bool takes_feed_token(const array& x, const Matrix& joint, const Matrix& last, mx::StreamOrDevice s) {
  return is_token(x, s) && fits(joint, x.shape(2), x.dtype()) && joint.arrays[0].shape(0) % 2 == 0 &&
      fits(last, joint.arrays[0].shape(0) / 2, x.dtype());
}

array feed_token(bool gelu, const array& x, const Matrix& joint, const Matrix& last, mx::StreamOrDevice s) {
  auto kind = gelu ? Gate::gelu : Gate::silu;
  return array(
      {1, 1, last.arrays[0].shape(0)}, x.dtype(),
      std::make_shared<FeedToken>(mx::to_stream(s), kind, joint.layout, last.layout), together(x, joint, last));
}

bool takes_attend_token(
    const array& x, const Matrix& joint, const Matrix& last, const array& keys, const array& values,
    const std::optional<array>& query_weight, const std::optional<array>& key_weight,
    const std::optional<array>& freqs, const Heads& heads, mx::StreamOrDevice s) {
  auto dtype = x.dtype();
  auto rows_fit = [&](const array& rows) {
    return rows.ndim() == 4 && rows.shape(0) == 1 && rows.shape(1) == heads.kv_heads && rows.shape(2) > heads.used &&
        rows.shape(3) == heads.dims && rows.dtype() == dtype && !traced(rows);
  };
  auto weight_fits = [&](const std::optional<array>& weight) {
    return weight.has_value() == heads.normed &&
        (!weight || (weight->ndim() == 1 && weight->dtype() == dtype && weight->shape(0) == heads.dims)) &&
        !traced(weight);
  };
  bool freqs_fit = !freqs ||
      (freqs->ndim() == 1 && freqs->dtype() == mx::float32 && freqs->shape(0) == heads.rotated / 2 && !traced(freqs));
  bool heads_fit = heads.heads > 0 && heads.kv_heads > 0 && heads.heads % heads.kv_heads == 0 && heads.used >= 0 &&
      heads.dims > 0 && heads.dims % 16 == 0 && heads.dims <= largest_dims && heads.rotated >= 0 &&
      heads.rotated % 2 == 0 && heads.rotated <= heads.dims;
  int64_t width = static_cast<int64_t>(heads.heads) * heads.dims;
  return heads_fit && is_token(x, s) && fits(joint, x.shape(2), dtype) &&
      joint.arrays[0].shape(0) == width + 2 * heads.kv_heads * heads.dims && fits(last, width, dtype) &&
      rows_fit(keys) && rows_fit(values) && weight_fits(query_weight) && weight_fits(key_weight) && freqs_fit;
}

array attend_token(
    const array& x, const Matrix& joint, const Matrix& last, const array& keys, const array& values,
    const std::optional<array>& query_weight, const std::optional<array>& key_weight,
    const std::optional<array>& freqs, const Heads& heads, mx::StreamOrDevice s) {
  auto inputs = together(x, joint, last);
  inputs.push_back(keys);
  inputs.push_back(values);
  for (auto& optional : {query_weight, key_weight, freqs}) {
    if (optional) {
      inputs.push_back(*optional);
    }
  }
  return array(
      {1, 1, last.arrays[0].shape(0)}, x.dtype(),
      std::make_shared<AttendToken>(mx::to_stream(s), heads, joint.layout, last.layout), std::move(inputs));
}

} // namespace mlxlm::cpu
