#include "cpu/token_primitives.h"

#include "cpu/attention.h"
#include "cpu/token_parts.h"

namespace mlxlm::cpu {
namespace {

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

// The same of all.
bool fit(const std::vector<Matrix>& matrices, int64_t count, mx::Dtype dtype) {
  return !matrices.empty() &&
      std::all_of(matrices.begin(), matrices.end(), [&](const Matrix& matrix) { return fits(matrix, count, dtype); });
}

int rows_of(const Matrix& matrix) {
  return matrix.arrays[0].shape(0);
}
int rows_of(const std::vector<Matrix>& matrices) {
  int rows = 0;
  for (auto& matrix : matrices) {
    rows += rows_of(matrix);
  }
  return rows;
}

void append(std::vector<array>& inputs, const Matrix& matrix) {
  inputs.insert(inputs.end(), matrix.arrays.begin(), matrix.arrays.end());
}

void append(std::vector<array>& inputs, const std::vector<Matrix>& matrices) {
  for (auto& matrix : matrices) {
    append(inputs, matrix);
  }
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

std::vector<Matrix> matrices(const std::vector<array>& arrays, const std::vector<int>& how) {
  std::vector<Matrix> matrices;
  auto next = arrays.begin();
  for (auto words = how.begin(); how.end() - words >= 4; words += 4) {
    Matrix matrix({}, {words, words + 4});
    int64_t count = matrix.layout.arrays();
    if (arrays.end() - next < count) {
      throw std::invalid_argument("a matrix is described that has no arrays");
    }
    matrix.arrays.assign(next, next + count);
    next += count;
    matrices.push_back(std::move(matrix));
  }
  if (next != arrays.end()) {
    throw std::invalid_argument("there are arrays that no matrix is described for");
  }
  return matrices;
}

bool takes_feed_token(const array& x, const FeedForward& block, mx::StreamOrDevice s) {
  return is_token(x, s) && fit(block.joint, x.shape(2), x.dtype()) && rows_of(block.joint) % 2 == 0 &&
      fits(block.last, rows_of(block.joint) / 2, x.dtype());
}

array feed_token(const array& x, const FeedForward& block, mx::StreamOrDevice s) {
  std::vector<array> inputs = {x};
  append(inputs, block);
  return array(
      {1, 1, rows_of(block.last)}, x.dtype(), std::make_shared<FeedToken>(mx::to_stream(s), FeedLayout(block)),
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
  return heads_fit && !attention.group && is_token(x, s) && fit(attention.joint, x.shape(2), dtype) &&
      rows_of(attention.joint) == width + 2 * heads.kv_heads * heads.dims && fits(attention.last, width, dtype) &&
      rows_fit(attention.keys) && rows_fit(attention.values) && weight_fits(attention.query_weight) &&
      weight_fits(attention.key_weight) && (!freqs || is_weight(*freqs, heads.rotated / 2, mx::float32));
}

array attend_token(const array& x, const TokenAttention& attention, mx::StreamOrDevice s) {
  std::vector<array> inputs = {x};
  append(inputs, attention);
  return array(
      {1, 1, rows_of(attention.last)}, x.dtype(),
      std::make_shared<AttendToken>(mx::to_stream(s), AttendLayout(attention)), std::move(inputs));
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
          mx::to_stream(s), delta.has_value(), layer.first_eps, AttendLayout(layer.attention), layer.second_eps,
          FeedLayout(layer.feed)),
      inputs);
}

} // namespace mlxlm::cpu
