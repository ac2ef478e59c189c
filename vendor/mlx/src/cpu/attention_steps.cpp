#include "cpu/attention_steps.h"

#include "cpu/primitives.h"
#include "mlx/utils.h"

namespace mlxlm::cpu {
namespace {

array masked(const array& scores, const array& mask, mx::StreamOrDevice s) {
  if (mask.dtype() != mx::bool_) {
    return mx::add(scores, mx::astype(mask, scores.dtype(), s), s);
  }
  return mx::where(mask, scores, array(mx::finfo(scores.dtype()).min, scores.dtype()), s);
}

// (T, S): the last query belongs to the last key.
array causal_mask(int queries, int keys, mx::StreamOrDevice s) {
  auto last_key = mx::expand_dims(mx::arange(keys - queries, keys, s), 1, s);
  return mx::greater_equal(last_key, mx::arange(keys, s), s);
}

// Scores (…, S) with one more that attends to nothing.
array softmax_with(const array& sinks, const array& scores, mx::StreamOrDevice s) {
  auto shape = scores.shape();
  shape.back() = 1;
  auto first = mx::broadcast_to(mx::astype(sinks, scores.dtype(), s), std::move(shape), s);
  auto weights = mx::softmax(mx::concatenate({first, scores}, -1, s), -1, true, s);
  mx::Shape from(weights.ndim(), 0);
  from.back() = 1;
  return mx::slice(weights, std::move(from), weights.shape(), s);
}

} // namespace

bool takes_attention_steps(const array& q, const array& k, const array& v, const std::string& mode, mx::StreamOrDevice s) {
  bool half = q.dtype() == mx::bfloat16 || q.dtype() == mx::float16;
  return takes(s) && half && q.ndim() == 4 && k.ndim() == 4 && v.ndim() == 4 && q.dtype() == k.dtype() &&
      q.dtype() == v.dtype() && q.size() > 0 && k.size() > 0 && q.shape(0) == k.shape(0) &&
      q.shape(1) % k.shape(1) == 0 && q.shape(3) == k.shape(3) && k.shape(0) == v.shape(0) &&
      k.shape(1) == v.shape(1) && k.shape(2) == v.shape(2) && (mode != "causal" || q.shape(2) <= k.shape(2));
}

array attention_steps(
    const array& q, const array& k, const array& v, float scale, bool causal, const std::optional<array>& mask,
    const std::optional<array>& sinks, mx::StreamOrDevice s) {
  int batch = q.shape(0), heads = q.shape(1), length = q.shape(2), total = k.shape(2);
  int kv_heads = k.shape(1), group = heads / kv_heads;
  // Heads that share keys are rows of one product, so no gradient is summed over copies of a key.
  auto scaled = mx::multiply(q, array(scale, q.dtype()), s);
  auto rows = mx::reshape(scaled, {batch, kv_heads, group * length, q.shape(3)}, s);
  auto scores = cpu::matmul(rows, mx::swapaxes(k, -1, -2, s), s);
  scores = mx::reshape(scores, {batch, heads, length, total}, s);
  if (causal) {
    scores = masked(scores, causal_mask(length, total, s), s);
  }
  if (mask) {
    scores = masked(scores, *mask, s);
  }
  auto weights = sinks ? softmax_with(mx::reshape(*sinks, {heads, 1, 1}, s), scores, s) : mx::softmax(scores, -1, true, s);
  weights = mx::reshape(weights, {batch, kv_heads, group * length, total}, s);
  return mx::reshape(cpu::matmul(weights, v, s), {batch, heads, length, v.shape(3)}, s);
}

} // namespace mlxlm::cpu
