// Where each of our operations goes: to a kernel of ours where one fits, else to MLX's.
#include "ours.h"

#include "cpu/argmax.h"
#include "cpu/attention_steps.h"
#include "cpu/block_primitives.h"
#include "cpu/gradient_primitives.h"
#include "cpu/layer_primitive.h"
#include "cpu/layer_primitives.h"
#include "cpu/mask_logits.h"
#include "cpu/primitives.h"
#include "cpu/softmax.h"
#include "cpu/token_primitives.h"
#include "cuda/dense.h"
#include "cuda/experts.h"
#include "cuda/kernel.h"
#include "cuda/kernels.h"
#include "cuda/low_rank.h"
#include "cuda/peers.h"
#include "cuda/products.h"
#include "cuda/rows.h"
#include "cuda/rows_layer.h"
#include "cuda/token.h"
#include "description.h"
#include "file_slices.h"

namespace mlxlm::ours {

namespace {

int axis_of(const array& a, int axis) {
  int from_start = axis < 0 ? axis + static_cast<int>(a.ndim()) : axis;
  if (from_start < 0 || from_start >= static_cast<int>(a.ndim())) {
    throw std::invalid_argument(
        "axis " + std::to_string(axis) + " of an array with " + std::to_string(a.ndim()) + " axes");
  }
  return from_start;
}

} // namespace

array slice(const array& a, mx::Shape start, mx::Shape stop, mx::Shape strides, mx::StreamOrDevice s) {
  bool is_box = start.size() == a.ndim() && stop.size() == a.ndim() && strides.size() == a.ndim() && is_in_files(a);
  for (size_t i = 0; is_box && i < a.ndim(); ++i) {
    is_box = strides[i] == 1 && 0 <= start[i] && start[i] <= stop[i] && stop[i] <= a.shape(static_cast<int>(i));
  }
  if (auto part = is_box ? slice_in_files(a, {start, stop}, s) : std::nullopt) {
    return *part;
  }
  return mx::slice(a, std::move(start), std::move(stop), std::move(strides), s);
}

std::vector<array> split(const array& a, const mx::Shape& indices, int axis, mx::StreamOrDevice s) {
  if (!is_in_files(a)) {
    return mx::split(a, indices, axis, s);
  }
  axis = axis_of(a, axis);
  std::vector<array> parts;
  for (size_t i = 0; i <= indices.size(); ++i) {
    mx::Shape from(a.ndim(), 0);
    mx::Shape to = a.shape();
    from[axis] = i > 0 ? indices[i - 1] : 0;
    to[axis] = i < indices.size() ? indices[i] : to[axis];
    bool is_box = 0 <= from[axis] && from[axis] < to[axis] && to[axis] <= a.shape(axis);
    auto part = is_box ? slice_in_files(a, {from, to}, s) : std::nullopt;
    if (!part) {
      return mx::split(a, indices, axis, s);
    }
    parts.push_back(std::move(*part));
  }
  return parts;
}

std::vector<array> split(const array& a, int parts, int axis, mx::StreamOrDevice s) {
  bool is_even = is_in_files(a) && parts > 0 && a.shape(axis_of(a, axis)) % parts == 0;
  if (!is_even) {
    return mx::split(a, parts, axis, s);
  }
  mx::Shape indices;
  for (int i = 1; i < parts; ++i) {
    indices.push_back(a.shape(axis_of(a, axis)) / parts * i);
  }
  return ours::split(a, indices, axis, s);
}

array slice_axis(const array& a, int axis, int start, int stop, mx::StreamOrDevice s) {
  axis = axis_of(a, axis);
  mx::Shape from(a.ndim(), 0);
  mx::Shape to = a.shape();
  from[axis] = start;
  to[axis] = stop;
  return ours::slice(a, std::move(from), std::move(to), mx::Shape(a.ndim(), 1), s);
}

array update_axis(const array& a, const array& update, int axis, int start, mx::StreamOrDevice s) {
  axis = axis_of(a, axis);
  mx::Shape from(a.ndim(), 0);
  mx::Shape to = a.shape();
  from[axis] = start;
  to[axis] = start + update.shape(axis_of(update, axis));
  if (start < 0 || to[axis] > a.shape(axis)) {
    throw std::out_of_range(
        "rows " + std::to_string(start) + " to " + std::to_string(to[axis]) + " of an axis of " +
        std::to_string(a.shape(axis)));
  }
  return mx::slice_update(a, update, std::move(from), std::move(to), s);
}

array rms_norm(const array& x, const std::optional<array>& weight, float eps, mx::StreamOrDevice s) {
  if (!cpu::takes_rms_norm(x, weight, s)) {
    return mx::fast::rms_norm(x, weight, eps, s);
  }
  bool traced = cpu::traced(x) || cpu::traced(weight);
  return traced ? cpu::rms_norm_with_gradient(x, weight, eps, s) : cpu::rms_norm(x, weight, eps, s);
}

array scaled_dot_product_attention(
    const array& q, const array& k, const array& v, float scale, const std::string& mode,
    const std::optional<array>& mask, const std::optional<array>& sinks, mx::StreamOrDevice s) {
  if (cpu::takes_attention(q, k, v, mode, mask, sinks, s)) {
    return cpu::attention(q, k, v, scale, mode == "causal", mask, sinks, s);
  }
  if (cpu::takes_attention_steps(q, k, v, mode, s)) {
    return cpu::attention_steps(q, k, v, scale, mode == "causal", mask, sinks, s);
  }
  return mx::fast::scaled_dot_product_attention(q, k, v, scale, mode, mask, sinks, false, s);
}

array softmax(const array& a, const std::vector<int>& axes, bool precise, mx::StreamOrDevice s) {
  // Without `precise` MLX sums in the array's own dtype. Those are other numbers, and samplers draw by them.
  bool same = precise || a.dtype() == mx::float32;
  return same && cpu::takes_softmax(a, axes, s) ? cpu::softmax(a, s) : mx::softmax(a, axes, precise, s);
}

array argmax(const array& a, int axis, bool keepdims, mx::StreamOrDevice s) {
  bool on_gpu = cuda::takes_argmax(a, axis, s);
  if (!on_gpu && !cpu::takes_argmax(a, axis, s)) {
    return mx::argmax(a, axis, keepdims, s);
  }
  auto places = on_gpu ? cuda::argmax(a, s) : cpu::argmax(a, s);
  return keepdims ? places : mx::squeeze(places, -1, s);
}

array logsumexp(const array& a, const std::vector<int>& axes, bool keepdims, mx::StreamOrDevice s) {
  if (!cpu::takes_softmax(a, axes, s)) {
    return mx::logsumexp(a, axes, keepdims, s);
  }
  auto sums = cpu::logsumexp(a, s);
  return keepdims ? sums : mx::squeeze(sums, -1, s);
}

array mask_logits(const array& logits, const array& bits, mx::StreamOrDevice s) {
  bool fits = logits.ndim() == 2 && bits.ndim() == 2 && bits.dtype() == mx::uint32 &&
      bits.shape(0) == logits.shape(0) && bits.shape(1) == (logits.shape(1) + 31) / 32;
  if (!fits) {
    throw std::invalid_argument("a mask needs a bit for each of the logits");
  }
  if (cuda::takes_mask_logits(logits, s)) {
    return cuda::mask_logits(logits, bits, s);
  }
  if (cpu::takes_mask_logits(logits, bits, s)) {
    return cpu::mask_logits(logits, bits, s);
  }
  int vocabulary = logits.shape(1);
  auto places = mx::arange(0, vocabulary, mx::uint32, s);
  auto words = mx::take(bits, mx::right_shift(places, array(5u), s), 1, s);
  auto shifted = mx::right_shift(words, mx::bitwise_and(places, array(31u), s), s);
  auto allowed = mx::astype(mx::bitwise_and(shifted, array(1u), s), mx::bool_, s);
  auto never = array(-std::numeric_limits<float>::infinity(), logits.dtype());
  return mx::where(allowed, logits, never, s);
}

std::vector<array> rotate(
    const array& x, int dims, std::optional<float> base, float scale, int offset, const std::optional<array>& freqs,
    mx::StreamOrDevice s) {
  if (!cpu::takes_rotate(x, dims, freqs, s)) {
    return {};
  }
  cpu::Angles angles = {base, scale, offset};
  return {cpu::traced(x) ? cpu::rotate_with_gradient(x, dims, angles, freqs, s) : cpu::rotate(x, dims, angles, freqs, s)};
}

std::vector<array> gate(bool gelu, const array& gate, const array& x, mx::StreamOrDevice s) {
  if (!cpu::takes_gate(gate, x, s)) {
    return {};
  }
  return {cpu::traced(gate, x) ? cpu::gate_with_gradient(gelu, gate, x, s) : cpu::gate(gelu, gate, x, s)};
}

std::vector<array> cross_entropy(const array& logits, const array& targets, mx::StreamOrDevice s) {
  if (!cpu::takes_cross_entropy(logits, targets, s)) {
    return {};
  }
  return {cpu::cross_entropy(logits, targets, s)};
}

std::vector<array> low_rank(
    const array& base, const array& x, const array& a, const array& b, float scale, mx::StreamOrDevice s) {
  if (!cuda::takes_low_rank(base, x, a, b, s)) {
    return {};
  }
  return {cuda::low_rank(base, x, a, b, scale, s)};
}

std::vector<array>
add_rms_norm(const array& x, const array& delta, const array& weight, float eps, mx::StreamOrDevice s) {
  if (auto parts = cuda::peer_sum_norm(x, delta, weight, eps, s)) {
    return *std::move(parts);
  }
  if (cuda::takes_add_rms_norm(x, delta, weight, s)) {
    return cuda::add_rms_norm(x, delta, weight, eps, s);
  }
  if (cpu::takes_add_rms_norm(x, delta, weight, s) && !cpu::traced(x, delta, weight)) {
    return cpu::add_rms_norm(x, delta, weight, eps, s);
  }
  auto sum = mx::add(x, delta, s);
  auto normed = rms_norm(sum, weight, eps, s);
  return {std::move(sum), std::move(normed)};
}

std::vector<array> rotate_heads(
    const array& joint, int heads, int kv_heads, const std::optional<array>& query_weight,
    const std::optional<array>& key_weight, float eps, int rotated, std::optional<float> base, float scale, int offset,
    const std::optional<array>& freqs, mx::StreamOrDevice s) {
  int all = heads + 2 * kv_heads;
  if (joint.ndim() == 0 || joint.shape(-1) % all != 0) {
    return {};
  }
  int dims = joint.shape(-1) / all;
  if (cpu::takes_rotate_heads(joint, dims, rotated, query_weight, key_weight, freqs, s)) {
    return cpu::rotate_heads(
        joint, heads, kv_heads, query_weight, key_weight, eps, rotated, {base, scale, offset}, freqs, s);
  }
  if (!cuda::takes_rotate_heads(joint, dims, rotated, s)) {
    return {};
  }
  return cuda::rotate_heads(
      joint, heads, kv_heads, query_weight, key_weight, eps, rotated, base, scale, offset, freqs, s);
}

std::vector<array> feed_token(const array& x, const Words& feed, mx::StreamOrDevice s) {
  auto block = feed_forward_of(feed);
  if (!cpu::takes_feed_token(x, block, s)) {
    return {};
  }
  return {cpu::feed_token(x, block, s)};
}

std::vector<array> attend_token(
    const array& x, const array& keys, const array& values, int used, int row, int offset, const Words& attention,
    mx::StreamOrDevice s) {
  auto whole = attention_of(attention, {keys, values, used, row, offset});
  if (cpu::takes_attend_token(x, whole, s)) {
    return {cpu::attend_token(x, whole, s)};
  }
  auto out = cuda::attend_token(x, whole, s);
  return out ? std::vector<array>{*out} : std::vector<array>{};
}

std::vector<array> attend_rows(
    const array& joint, const array& keys, const array& values, int used, const std::vector<int>& starts,
    const std::vector<int>& positions, const Words& heads, mx::StreamOrDevice s) {
  auto out = cuda::attend_rows(joint, attended_rows_of(heads, keys, values, {used, starts, positions}), s);
  return out ? std::vector<array>{*out} : std::vector<array>{};
}

std::vector<array> layer_token(
    const array& x, const std::optional<array>& delta, const array& keys, const array& values, int used, int row,
    int offset, const Words& layer, mx::StreamOrDevice s) {
  auto whole = layer_of(layer, {keys, values, used, row, offset});
  if (cpu::takes_layer_token(x, delta, whole, s)) {
    return cpu::layer_token(x, delta, whole, s);
  }
  return cuda::layer_token(x, delta, whole, s);
}

std::vector<array> layer_rows(
    const array& x, const std::optional<array>& delta, const array& keys, const array& values, int used,
    const std::vector<int>& starts, const std::vector<int>& positions, const Words& layer, mx::StreamOrDevice s) {
  return cuda::layer_rows(x, delta, layer_of(layer, {keys, values, 0, 0, 0}), {used, starts, positions}, s);
}

std::vector<array> experts_token(
    const array& x, const array& experts, const array& weights, const Words& stacks, mx::StreamOrDevice s) {
  auto out = cuda::experts_token(x, experts, weights, experts_of(stacks), s);
  return out ? std::vector<array>{*out} : std::vector<array>{};
}

std::vector<array> route_tokens(const array& logits, int count, bool normalize, mx::StreamOrDevice s) {
  return cuda::route_tokens(logits, count, normalize, s);
}

array quantized_matmul(
    const array& x, const array& w, const array& scales, const std::optional<array>& biases, bool transpose,
    std::optional<int> group_size, std::optional<int> bits, const std::string& mode, mx::StreamOrDevice s) {
  int group = group_size.value_or(64);
  int width = bits.value_or(4);
  if (transpose && biases && mode == "affine" && cuda::takes_quantized_row(x, w, scales, *biases, group, width, s)) {
    return cuda::quantized_row(x, w, scales, *biases, group, width, s);
  }
  if (cuda::on_gpu(s)) {
    cuda::Packed weight = {w, scales, biases, group, width, mode};
    if (cuda::takes_quantized_rows(x, weight, transpose)) {
      return cuda::quantized_rows(x, weight, transpose, s);
    }
  }
  return cpu::quantized_matmul(x, w, scales, biases, transpose, group_size, bits, mode, s);
}

array gather_qmm(
    const array& x, const array& w, const array& scales, const std::optional<array>& biases,
    const std::optional<array>& lhs_indices, const std::optional<array>& rhs_indices, bool transpose,
    std::optional<int> group_size, std::optional<int> bits, const std::string& mode,
    const std::optional<array>& global_scale, bool sorted, mx::StreamOrDevice s) {
  if (global_scale) {
    return mx::gather_qmm(
        x, w, scales, biases, lhs_indices, rhs_indices, transpose, group_size, bits, mode, global_scale, sorted, s);
  }
  if (transpose && !lhs_indices && rhs_indices && cuda::on_gpu(s)) {
    cuda::Packed weight = {w, scales, biases, group_size.value_or(64), bits.value_or(4), mode};
    if (cuda::takes_expert_rows(x, weight, *rhs_indices, sorted)) {
      return cuda::expert_rows(x, weight, *rhs_indices, sorted, s);
    }
  }
  return cpu::gather_qmm(
      x, w, scales, biases, lhs_indices, rhs_indices, transpose, group_size, bits, mode, sorted, s);
}

array matmul(const array& a, const array& b, mx::StreamOrDevice s) {
  if (cuda::takes_dense_rows(a, b, s)) {
    return cuda::dense_rows(a, b, s);
  }
  return cpu::matmul(a, b, s);
}

array gather_mm(
    const array& a, const array& b, const std::optional<array>& lhs_indices, const std::optional<array>& rhs_indices,
    bool sorted, mx::StreamOrDevice s) {
  return cpu::gather_mm(a, b, lhs_indices, rhs_indices, sorted, s);
}

array block_matmul(const array& x, const array& w, int type, mx::StreamOrDevice s) {
  return cpu::block_matmul(x, w, type, s);
}

array gather_block_mm(const array& x, const array& w, const array& indices, int type, mx::StreamOrDevice s) {
  return cpu::gather_block_mm(x, w, indices, type, s);
}

array unpack_blocks(const array& w, int type, mx::Dtype dtype, mx::StreamOrDevice s) {
  return cpu::unpack_blocks(w, type, dtype, s);
}

array block_vectors(int type, mx::StreamOrDevice s) {
  return cpu::block_vectors(type, s);
}

} // namespace mlxlm::ours
