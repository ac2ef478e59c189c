#include "cpu/token_primitives.h"

#include "cpu/attention.h"
#include "cpu/token_parts.h"

namespace mlxlm::cpu {
namespace {

// MLX looks through an operation's inputs for every token, on a core that the kernels want. So arrays that are there already
// are no inputs: the operation holds them itself.
class TokenPrimitive : public LayerPrimitive {
 public:
  TokenPrimitive(mx::Stream stream, std::vector<array> arrays)
      : LayerPrimitive(stream), arrays_(std::make_shared<const std::vector<array>>(std::move(arrays))) {}

  // It may write to its arrays, and not all of them are inputs: two that look the same are not one.
  bool is_equivalent(const mx::Primitive&) const override {
    return false;
  }

 protected:
  // While the operation waits, too.
  std::shared_ptr<const std::vector<array>> arrays_;
};

// Those of an operation's arrays that are not there yet.
std::vector<array> awaited(const std::vector<array>& arrays) {
  std::vector<array> inputs;
  std::copy_if(arrays.begin(), arrays.end(), std::back_inserter(inputs), [](const array& a) { return !a.is_available(); });
  return inputs;
}

// What lies in a thread's own memory between products.
char* room_for(size_t bytes) {
  return static_cast<char*>(scratch(2, bytes));
}

// Arrays: x, then the block's.
class FeedToken : public TokenPrimitive {
 public:
  FeedToken(mx::Stream stream, std::vector<array> arrays, FeedLayout layout)
      : TokenPrimitive(stream, std::move(arrays)), layout_(std::move(layout)) {}

  void eval_cpu(const std::vector<array>&, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    Inputs next(*arrays_, encoder);
    auto& x = next.ordered();
    HeldFeed feed(layout_, x.dtype(), next);
    encoder.dispatch([held = arrays_, from = x.data<void>(), to = outputs[0].data<void>(), feed = std::move(feed),
                      bytes = next.row_bytes()] { feed(from, to, room_for(bytes)); });
  }

  const char* name() const override {
    return "CpuFeedToken";
  }

 private:
  FeedLayout layout_;
};

// Arrays: x, then attention's.
class AttendToken : public TokenPrimitive {
 public:
  AttendToken(mx::Stream stream, std::vector<array> arrays, AttendLayout layout)
      : TokenPrimitive(stream, std::move(arrays)), layout_(std::move(layout)) {}

  void eval_cpu(const std::vector<array>&, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    Inputs next(*arrays_, encoder);
    auto& x = next.ordered();
    HeldAttention attend(layout_, x.dtype(), next);
    encoder.dispatch([held = arrays_, from = x.data<void>(), to = outputs[0].data<void>(), attend = std::move(attend),
                      bytes = next.row_bytes()] { attend(from, to, room_for(bytes)); });
  }

  const char* name() const override {
    return "CpuAttendToken";
  }

 private:
  AttendLayout layout_;
};

// Arrays: x, delta where there is one, the first norm's weight, attention's, the second norm's weight, the block's, the weights
// of the norms behind where there are such.
class LayerToken : public TokenPrimitive {
 public:
  LayerToken(
      mx::Stream stream, std::vector<array> arrays, bool adds, const TokenLayer& layer)
      : TokenPrimitive(stream, std::move(arrays)),
        adds_(adds),
        norms_behind_(layer.behind.has_value()),
        eps_(layer),
        attention_(layer.attention),
        feed_(layer.feed) {}

  void eval_cpu(const std::vector<array>&, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    for (auto& output : outputs) {
      allocate(output);
    }
    Inputs next(*arrays_, encoder);
    auto& token = next.ordered();
    auto dtype = token.dtype();
    int64_t dims = token.size();
    auto x = token.data<void>();
    auto delta = adds_ ? next.ordered().data<void>() : nullptr;
    auto type = float_of(dtype);
    Norm first = {type, dims, next.ordered().data<void>(), eps_.first};
    HeldAttention attend(attention_, dtype, next);
    Norm second = {type, dims, next.ordered().data<void>(), eps_.second};
    HeldFeed feed(feed_, dtype, next);
    auto entered = next.row(dims, dtype);
    auto normed = next.row(dims, dtype);
    auto attended = next.row(dims, dtype);
    std::optional<std::pair<Norm, Norm>> behind;
    if (norms_behind_) {
      Norm behind_attention = {type, dims, next.ordered().data<void>(), eps_.behind_attention};
      behind = {behind_attention, {type, dims, next.ordered().data<void>(), eps_.behind_feed}};
    }
    auto raw = behind ? next.row(dims, dtype) : 0;
    encoder.dispatch([held = arrays_, x, delta, first, attend = std::move(attend), second, feed = std::move(feed), entered,
                      normed, attended, behind, raw, sum = outputs[0].data<void>(), out = outputs[1].data<void>(),
                      bytes = next.row_bytes()] {
      auto& kernels = row_kernels();
      auto room = room_for(bytes);
      kernels.norm(first, x, delta, delta ? room + entered : nullptr, room + normed);
      attend(room + normed, room + (behind ? raw : attended), room);
      if (behind) {
        kernels.norm(behind->first, room + raw, nullptr, nullptr, room + attended);
      }
      kernels.norm(second, delta ? room + entered : x, room + attended, sum, room + normed);
      feed(room + normed, behind ? room + raw : out, room);
      if (behind) {
        kernels.norm(behind->second, room + raw, nullptr, nullptr, out);
      }
    });
  }

  const char* name() const override {
    return "CpuLayerToken";
  }

 private:
  bool adds_;
  bool norms_behind_;
  Epsilons eps_;
  AttendLayout attention_;
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

void append(std::vector<array>& arrays, const Matrix& matrix) {
  arrays.insert(arrays.end(), matrix.arrays.begin(), matrix.arrays.end());
}

void append(std::vector<array>& arrays, const std::vector<Matrix>& matrices) {
  for (auto& matrix : matrices) {
    append(arrays, matrix);
  }
}

void append(std::vector<array>& arrays, const FeedForward& block) {
  append(arrays, block.joint);
  append(arrays, block.last);
}

void append(std::vector<array>& arrays, const TokenAttention& attention) {
  append(arrays, attention.joint);
  append(arrays, attention.last);
  arrays.push_back(attention.keys);
  arrays.push_back(attention.values);
  for (auto& optional : {attention.query_weight, attention.key_weight, attention.freqs}) {
    if (optional) {
      arrays.push_back(*optional);
    }
  }
}

} // namespace

size_t MatrixLayout::arrays() const {
  return 1 + (packing ? packing->is_affine() ? 2 : 1 : 0) + biased;
}

bool takes_feed_token(const array& x, const FeedForward& block, mx::StreamOrDevice s) {
  return is_token(x, s) && fit(block.joint, x.shape(2), x.dtype()) && rows_of(block.joint) % 2 == 0 &&
      fits(block.last, rows_of(block.joint) / 2, x.dtype());
}

array feed_token(const array& x, const FeedForward& block, mx::StreamOrDevice s) {
  std::vector<array> arrays = {x};
  append(arrays, block);
  auto inputs = awaited(arrays);
  return array(
      {1, 1, rows_of(block.last)}, x.dtype(),
      std::make_shared<FeedToken>(mx::to_stream(s), std::move(arrays), FeedLayout(block)), std::move(inputs));
}

bool takes_attend_token(const array& x, const TokenAttention& attention, mx::StreamOrDevice s) {
  auto dtype = x.dtype();
  auto& heads = attention.heads;
  auto& freqs = attention.freqs;
  auto rows_fit = [&](const array& rows) {
    return rows.ndim() == 4 && rows.shape(0) == 1 && rows.shape(1) == heads.kv_heads && has_rows(rows, heads) &&
        rows.shape(3) == heads.dims && rows.dtype() == dtype && !traced(rows);
  };
  auto weight_fits = [&](const std::optional<array>& weight) {
    return weight.has_value() == heads.normed && (!weight || is_weight(*weight, heads.dims, dtype));
  };
  bool heads_fit = heads.heads > 0 && heads.kv_heads > 0 && heads.heads % heads.kv_heads == 0 && row_fits(heads) &&
      heads.dims > 0 && heads.dims % 16 == 0 && heads.dims <= largest_dims && heads.rotated >= 0 &&
      heads.rotated % 2 == 0 && heads.rotated <= heads.dims;
  int64_t width = static_cast<int64_t>(heads.heads) * heads.dims;
  return heads_fit && !attention.group && is_token(x, s) && fit(attention.joint, x.shape(2), dtype) &&
      rows_of(attention.joint) == width + 2 * heads.kv_heads * heads.dims && fits(attention.last, width, dtype) &&
      rows_fit(attention.keys) && rows_fit(attention.values) && weight_fits(attention.query_weight) &&
      weight_fits(attention.key_weight) && (!freqs || is_weight(*freqs, heads.rotated / 2, mx::float32));
}

array attend_token(const array& x, const TokenAttention& attention, mx::StreamOrDevice s) {
  std::vector<array> arrays = {x};
  append(arrays, attention);
  auto inputs = awaited(arrays);
  return array(
      {1, 1, rows_of(attention.last)}, x.dtype(),
      std::make_shared<AttendToken>(mx::to_stream(s), std::move(arrays), AttendLayout(attention)), std::move(inputs));
}

bool takes_layer_token(
    const array& x, const std::optional<array>& delta, const TokenLayer& layer, mx::StreamOrDevice s) {
  return takes_attend_token(x, layer.attention, s) && takes_feed_token(x, layer.feed, s) &&
      (!delta || (delta->shape() == x.shape() && delta->dtype() == x.dtype() && !traced(delta))) &&
      rows_of(layer.attention.last) == x.shape(2) && rows_of(layer.feed.last) == x.shape(2) &&
      norms_fit(layer, [&](const array& weight) { return is_weight(weight, x.shape(2), x.dtype()); });
}

std::vector<array> layer_token(
    const array& x, const std::optional<array>& delta, const TokenLayer& layer, mx::StreamOrDevice s) {
  std::vector<array> arrays = {x};
  if (delta) {
    arrays.push_back(*delta);
  }
  arrays.push_back(layer.first.weight);
  append(arrays, layer.attention);
  arrays.push_back(layer.second.weight);
  append(arrays, layer.feed);
  if (layer.behind) {
    arrays.insert(arrays.end(), {layer.behind->attention.weight, layer.behind->feed.weight});
  }
  auto inputs = awaited(arrays);
  return array::make_arrays(
      {x.shape(), x.shape()}, {x.dtype(), x.dtype()},
      std::make_shared<LayerToken>(mx::to_stream(s), std::move(arrays), delta.has_value(), layer),
      inputs);
}

} // namespace mlxlm::cpu
