#include "cpu/token_primitives.h"

#include <cstring>

#include "cpu/attention.h"
#include "cpu/layer_primitive.h"
#include "cpu/product.h"
#include "cpu/rows.h"

namespace mlxlm::cpu {
namespace {

// An operation's inputs, one after the other, as what it may hold while it waits.
class Inputs {
 public:
  Inputs(const std::vector<array>& inputs, mx::cpu::CommandEncoder& encoder) : inputs_(inputs), encoder_(encoder) {}

  array as_it_lies() {
    return array::unsafe_weak_copy(inputs_[next_++]);
  }
  array ordered() {
    return array::unsafe_weak_copy(in_order(inputs_[next_++], encoder_));
  }
  // Memory for a row between two products.
  array row(int64_t count, mx::Dtype dtype) {
    array row({static_cast<int>(count)}, dtype, nullptr, {});
    allocate(row);
    encoder_.add_temporary(row);
    return array::unsafe_weak_copy(row);
  }

 private:
  const std::vector<array>& inputs_;
  mx::cpu::CommandEncoder& encoder_;
  size_t next_ = 0;
};

// How many numbers a row has; 0 where those are no whole blocks.
int64_t width_of(const MatrixLayout& layout, const array& w) {
  if (layout.block_type != 0) {
    auto size = block_size(layout.block_type);
    return size.numbers != 0 && w.shape(1) % size.bytes == 0 ? w.shape(1) / size.bytes * size.numbers : 0;
  }
  return layout.packing ? static_cast<int64_t>(w.shape(1)) * 32 / layout.packing->bits : w.shape(1);
}

// A matrix while an operation runs.
struct HeldMatrix {
  Product product;
  array w;
  std::optional<array> scales;
  std::optional<array> biases;
  std::optional<array> bias;

  HeldMatrix(const MatrixLayout& layout, mx::Dtype dtype, Inputs& inputs) : product(), w(inputs.ordered()) {
    auto& packing = layout.packing;
    if (packing) {
      scales = inputs.ordered();
      if (packing->is_affine()) {
        biases = inputs.ordered();
      }
    }
    if (layout.biased) {
      bias = inputs.ordered();
    }
    auto type = float_of(dtype);
    product.type = type;
    product.format = packing ? *format_of(*packing)
        : type == Float::f32 ? Format::f32
        : type == Float::f16 ? Format::f16
                             : Format::bf16;
    product.group = packing ? packing->group : 0;
    product.transposed = true;
    product.n = w.shape(0);
    product.k = width_of(layout, w);
    product.row_bytes = w.shape(1) * static_cast<int64_t>(w.itemsize());
    product.x_step = 1;
    if (layout.block_type != 0) {
      set_blocks(product, static_cast<BlockType>(layout.block_type));
    }
  }

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

struct FeedLayout {
  MatrixLayout joint;
  MatrixLayout last;
  Gate kind;

  bool operator==(const FeedLayout&) const = default;
};

FeedLayout layout_of(const FeedForward& block) {
  return {block.joint.layout, block.last.layout, block.gelu ? Gate::gelu : Gate::silu};
}

struct HeldFeed {
  HeldMatrix joint;
  HeldMatrix last;
  Gate kind;
  array entering;
  array opened;

  HeldFeed(const FeedLayout& layout, mx::Dtype dtype, Inputs& inputs)
      : joint(layout.joint, dtype, inputs),
        last(layout.last, dtype, inputs),
        kind(layout.kind),
        entering(inputs.row(joint.product.n, dtype)),
        opened(inputs.row(last.product.k, dtype)) {}

  void operator()(const void* x, void* out) {
    joint.multiply(x, entering.data<void>());
    int64_t count = last.product.k;
    auto at = [](array& a, int64_t i) { return a.data<char>() + i * static_cast<int64_t>(a.itemsize()); };
    auto& kernels = row_kernels();
    parallel_for((count + piece - 1) / piece, [&](int64_t part) {
      int64_t from = part * piece;
      kernels.gate(
          kind, joint.product.type, at(entering, from), at(entering, count + from), at(opened, from),
          std::min(piece, count - from));
    });
    last.multiply(opened.data<void>(), out);
  }
};

struct AttendLayout {
  MatrixLayout joint;
  MatrixLayout last;
  Heads heads;
  bool has_freqs;
};

AttendLayout layout_of(const TokenAttention& attention) {
  return {attention.joint.layout, attention.last.layout, attention.heads, attention.freqs.has_value()};
}

struct HeldAttention {
  HeldMatrix joint;
  HeldMatrix last;
  Heads heads;
  array keys;
  array values;
  std::vector<array> weights; // of the norms over queries and keys
  std::optional<array> freqs;
  array entering;
  array queries;
  array attended;

  HeldAttention(const AttendLayout& layout, mx::Dtype dtype, Inputs& inputs)
      : joint(layout.joint, dtype, inputs),
        last(layout.last, dtype, inputs),
        heads(layout.heads),
        keys(inputs.as_it_lies()),
        values(inputs.as_it_lies()),
        entering(inputs.row(joint.product.n, dtype)),
        queries(inputs.row(last.product.k, dtype)),
        attended(inputs.row(last.product.k, dtype)) {
    if (keys.strides(3) != 1 || values.strides(3) != 1) {
      throw std::invalid_argument("the numbers of a head's keys and values do not lie side by side");
    }
    while (heads.normed && weights.size() < 2) {
      weights.push_back(inputs.ordered());
    }
    if (layout.has_freqs) {
      freqs = inputs.as_it_lies();
    }
  }

  void operator()(const void* x, void* out) {
    joint.multiply(x, entering.data<void>());
    place();
    attend();
    last.multiply(attended.data<void>(), out);
  }

  // A head's row `used` of keys or values.
  char* new_row(array& rows, int head) const {
    return rows.data<char>() +
        (head * rows.strides(1) + heads.used * rows.strides(2)) * static_cast<int64_t>(rows.itemsize());
  }

  // Queries to their buffer, the token's key and value to row `used`, turned.
  void place() {
    auto inverse = inverse_frequencies(heads.rotated, heads.angles, freqs ? &*freqs : nullptr);
    auto table = rotation_table(std::move(inverse), heads.angles.scale, heads.angles.offset, 1);
    auto type = float_of(entering.dtype());
    Rotation rotation = {type, heads.dims, heads.rotated, table->cosines.data(), table->sines.data()};
    auto& kernels = row_kernels();
    for (int row = 0; row < heads.heads + heads.kv_heads; ++row) {
      bool of_query = row < heads.heads;
      Norm norm = {type, heads.dims, heads.normed ? weights[of_query ? 0 : 1].data<void>() : nullptr, heads.eps};
      auto to = of_query ? row_of(queries, row, heads.dims) : new_row(keys, row - heads.heads);
      kernels.rotate(rotation, heads.normed ? &norm : nullptr, row_of(entering, row, heads.dims), to);
    }
    for (int head = 0; head < heads.kv_heads; ++head) {
      auto from = row_of(entering, heads.heads + heads.kv_heads + head, heads.dims);
      std::memcpy(new_row(values, head), from, heads.dims * entering.itemsize());
    }
  }

  void attend() {
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
};

// Inputs: x, then the block's.
class FeedToken : public LayerPrimitive {
 public:
  FeedToken(mx::Stream stream, FeedLayout layout) : LayerPrimitive(stream), layout_(std::move(layout)) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    Inputs next(inputs, encoder);
    auto x = next.ordered();
    HeldFeed feed(layout_, x.dtype(), next);
    encoder.dispatch([x = std::move(x), out = array::unsafe_weak_copy(outputs[0]), feed = std::move(feed)]() mutable {
      feed(x.data<void>(), out.data<void>());
    });
  }

  const char* name() const override {
    return "CpuFeedToken";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    return layout_ == static_cast<const FeedToken&>(other).layout_;
  }

 private:
  FeedLayout layout_;
};

// Inputs: x, then attention's.
class AttendToken : public LayerPrimitive {
 public:
  AttendToken(mx::Stream stream, AttendLayout layout) : LayerPrimitive(stream), layout_(std::move(layout)) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    Inputs next(inputs, encoder);
    auto x = next.ordered();
    HeldAttention attend(layout_, x.dtype(), next);
    encoder.dispatch(
        [x = std::move(x), out = array::unsafe_weak_copy(outputs[0]), attend = std::move(attend)]() mutable {
          attend(x.data<void>(), out.data<void>());
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
  AttendLayout layout_;
};

// Inputs: x, delta where there is one, the first norm's weight, attention's, the second norm's weight, the block's.
class LayerToken : public LayerPrimitive {
 public:
  LayerToken(mx::Stream stream, bool adds, float first_eps, AttendLayout attention, float second_eps, FeedLayout feed)
      : LayerPrimitive(stream),
        adds_(adds),
        first_eps_(first_eps),
        attention_(std::move(attention)),
        second_eps_(second_eps),
        feed_(std::move(feed)) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    for (auto& output : outputs) {
      allocate(output);
    }
    Inputs next(inputs, encoder);
    auto x = next.ordered();
    auto dtype = x.dtype();
    auto delta = adds_ ? std::optional(next.ordered()) : std::nullopt;
    auto first = next.ordered();
    HeldAttention attend(attention_, dtype, next);
    auto second = next.ordered();
    HeldFeed feed(feed_, dtype, next);
    int64_t dims = x.size();
    auto entered = next.row(dims, dtype);
    auto normed = next.row(dims, dtype);
    auto attended = next.row(dims, dtype);
    encoder.dispatch([x = std::move(x), delta = std::move(delta), first = std::move(first), attend = std::move(attend),
                      second = std::move(second), feed = std::move(feed), entered = std::move(entered),
                      normed = std::move(normed), attended = std::move(attended),
                      sum = array::unsafe_weak_copy(outputs[0]), out = array::unsafe_weak_copy(outputs[1]), dims,
                      first_eps = first_eps_, second_eps = second_eps_]() mutable {
      auto& kernels = row_kernels();
      auto type = float_of(x.dtype());
      kernels.norm(
          {type, dims, first.data<void>(), first_eps}, x.data<void>(), delta ? delta->data<void>() : nullptr,
          delta ? entered.data<void>() : nullptr, normed.data<void>());
      attend(normed.data<void>(), attended.data<void>());
      kernels.norm(
          {type, dims, second.data<void>(), second_eps}, delta ? entered.data<void>() : x.data<void>(),
          attended.data<void>(), sum.data<void>(), normed.data<void>());
      feed(normed.data<void>(), out.data<void>());
    });
  }

  const char* name() const override {
    return "CpuLayerToken";
  }
  // It writes to its inputs: two that look the same are not one.
  bool is_equivalent(const mx::Primitive&) const override {
    return false;
  }

 private:
  bool adds_;
  float first_eps_;
  AttendLayout attention_;
  float second_eps_;
  FeedLayout feed_;
};

// Whether it is a matrix (·, count) that kernels read, for rows of this kind.
bool fits(const Matrix& matrix, int64_t count, mx::Dtype dtype) {
  auto& [arrays, layout] = matrix;
  auto& packing = layout.packing;
  if (arrays.size() != layout.arrays() || arrays[0].ndim() != 2 || (packing && !format_of(*packing))) {
    return false;
  }
  auto& w = arrays[0];
  int64_t width = width_of(layout, w);
  bool in_blocks = layout.block_type != 0;
  auto stored = packing ? mx::uint32 : in_blocks ? mx::uint8 : dtype;
  if (width != count || count == 0 || w.shape(0) == 0 || w.dtype() != stored) {
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
      ((packing || in_blocks) && arrays.back().ndim() == 1 && arrays.back().shape(0) == w.shape(0) && arrays.back().dtype() == dtype);
  return bias_fits && std::none_of(arrays.begin(), arrays.end(), [](const array& a) { return traced(a); });
}

bool is_token(const array& x, mx::StreamOrDevice s) {
  return takes(s) && x.ndim() == 3 && x.shape(0) == 1 && x.shape(1) == 1 && is_known(x.dtype()) && !traced(x);
}

bool is_weight(const array& weight, int64_t count, mx::Dtype dtype) {
  return weight.ndim() == 1 && weight.dtype() == dtype && weight.shape(0) == count && !traced(weight);
}

int rows_of(const Matrix& matrix) {
  return matrix.arrays[0].shape(0);
}

void append(std::vector<array>& inputs, const Matrix& matrix) {
  inputs.insert(inputs.end(), matrix.arrays.begin(), matrix.arrays.end());
}

void append(std::vector<array>& inputs, const FeedForward& block) {
  append(inputs, block.joint);
  append(inputs, block.last);
}

void append(std::vector<array>& inputs, const TokenAttention& attention) {
  append(inputs, attention.joint);
  append(inputs, attention.last);
  inputs.push_back(attention.keys);
  inputs.push_back(attention.values);
  for (auto& optional : {attention.query_weight, attention.key_weight, attention.freqs}) {
    if (optional) {
      inputs.push_back(*optional);
    }
  }
}

} // namespace

size_t MatrixLayout::arrays() const {
  return 1 + (packing ? packing->is_affine() ? 2 : 1 : 0) + biased;
}

Matrix::Matrix(std::vector<array> given, const std::vector<int>& how) : arrays(std::move(given)) {
  static const char* modes[] = {"affine", "mxfp4", "mxfp8", "nvfp4"};
  constexpr int blocks = 4;
  if (how.size() != 4 || how[2] < 0 || how[2] > blocks) {
    throw std::invalid_argument("a matrix is described by its group, bits, mode, and whether it has a bias");
  }
  layout.biased = how[3] != 0;
  layout.block_type = how[2] == blocks ? how[0] : 0;
  if (how[0] > 0 && how[2] < blocks) {
    layout.packing = quantization(how[0], how[1], modes[how[2]], true);
  }
}

bool takes_feed_token(const array& x, const FeedForward& block, mx::StreamOrDevice s) {
  return is_token(x, s) && fits(block.joint, x.shape(2), x.dtype()) && rows_of(block.joint) % 2 == 0 &&
      fits(block.last, rows_of(block.joint) / 2, x.dtype());
}

array feed_token(const array& x, const FeedForward& block, mx::StreamOrDevice s) {
  std::vector<array> inputs = {x};
  append(inputs, block);
  return array(
      {1, 1, rows_of(block.last)}, x.dtype(), std::make_shared<FeedToken>(mx::to_stream(s), layout_of(block)),
      std::move(inputs));
}

bool takes_attend_token(const array& x, const TokenAttention& attention, mx::StreamOrDevice s) {
  auto dtype = x.dtype();
  auto& heads = attention.heads;
  auto& freqs = attention.freqs;
  auto rows_fit = [&](const array& rows) {
    return rows.ndim() == 4 && rows.shape(0) == 1 && rows.shape(1) == heads.kv_heads && rows.shape(2) > heads.used &&
        rows.shape(3) == heads.dims && rows.dtype() == dtype && !traced(rows);
  };
  auto weight_fits = [&](const std::optional<array>& weight) {
    return weight.has_value() == heads.normed && (!weight || is_weight(*weight, heads.dims, dtype));
  };
  bool heads_fit = heads.heads > 0 && heads.kv_heads > 0 && heads.heads % heads.kv_heads == 0 && heads.used >= 0 &&
      heads.dims > 0 && heads.dims % 16 == 0 && heads.dims <= largest_dims && heads.rotated >= 0 &&
      heads.rotated % 2 == 0 && heads.rotated <= heads.dims;
  int64_t width = static_cast<int64_t>(heads.heads) * heads.dims;
  return heads_fit && is_token(x, s) && fits(attention.joint, x.shape(2), dtype) &&
      rows_of(attention.joint) == width + 2 * heads.kv_heads * heads.dims && fits(attention.last, width, dtype) &&
      rows_fit(attention.keys) && rows_fit(attention.values) && weight_fits(attention.query_weight) &&
      weight_fits(attention.key_weight) && (!freqs || is_weight(*freqs, heads.rotated / 2, mx::float32));
}

array attend_token(const array& x, const TokenAttention& attention, mx::StreamOrDevice s) {
  std::vector<array> inputs = {x};
  append(inputs, attention);
  return array(
      {1, 1, rows_of(attention.last)}, x.dtype(),
      std::make_shared<AttendToken>(mx::to_stream(s), layout_of(attention)), std::move(inputs));
}

bool takes_layer_token(
    const array& x, const std::optional<array>& delta, const TokenLayer& layer, mx::StreamOrDevice s) {
  return takes_attend_token(x, layer.attention, s) && takes_feed_token(x, layer.feed, s) &&
      (!delta || (delta->shape() == x.shape() && delta->dtype() == x.dtype() && !traced(delta))) &&
      rows_of(layer.attention.last) == x.shape(2) && rows_of(layer.feed.last) == x.shape(2) &&
      is_weight(layer.first_norm, x.shape(2), x.dtype()) && is_weight(layer.second_norm, x.shape(2), x.dtype());
}

std::vector<array> layer_token(
    const array& x, const std::optional<array>& delta, const TokenLayer& layer, mx::StreamOrDevice s) {
  std::vector<array> inputs = {x};
  if (delta) {
    inputs.push_back(*delta);
  }
  inputs.push_back(layer.first_norm);
  append(inputs, layer.attention);
  inputs.push_back(layer.second_norm);
  append(inputs, layer.feed);
  return array::make_arrays(
      {x.shape(), x.shape()}, {x.dtype(), x.dtype()},
      std::make_shared<LayerToken>(
          mx::to_stream(s), delta.has_value(), layer.first_eps, layout_of(layer.attention), layer.second_eps,
          layout_of(layer.feed)),
      inputs);
}

} // namespace mlxlm::cpu
