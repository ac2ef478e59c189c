// Operations that are ours: what MLX's C++ lacks, or does in more steps than decoding can afford. Namespace `ours` in the
// op table.
#pragma once

#include "abi.h"
#include "recurrent.h"

namespace mlxlm::ours {

// mx::slice and split. Of a tensor that is still in its file no more is read than the part (file_slices.h).
array slice(const array& a, mx::Shape start, mx::Shape stop, mx::Shape strides, mx::StreamOrDevice s);
std::vector<array> split(const array& a, const mx::Shape& indices, int axis, mx::StreamOrDevice s);
std::vector<array> split(const array& a, int parts, int axis, mx::StreamOrDevice s);

// a[…, start:stop, …] along one axis.
array slice_axis(const array& a, int axis, int start, int stop, mx::StreamOrDevice s);

// `a` with `update` written along one axis from `start` on.
array update_axis(const array& a, const array& update, int axis, int start, mx::StreamOrDevice s);

// mx::fast::rms_norm and scaled_dot_product_attention, by kernels of ours where those are faster.
array rms_norm(const array& x, const std::optional<array>& weight, float eps, mx::StreamOrDevice s);
array scaled_dot_product_attention(
    const array& q, const array& k, const array& v, float scale, const std::string& mode,
    const std::optional<array>& mask, const std::optional<array>& sinks, mx::StreamOrDevice s);

// mx::softmax, argmax and logsumexp, by kernels of ours where those are faster.
array softmax(const array& a, const std::vector<int>& axes, bool precise, mx::StreamOrDevice s);
array argmax(const array& a, int axis, bool keepdims, mx::StreamOrDevice s);
array logsumexp(const array& a, const std::vector<int>& axes, bool keepdims, mx::StreamOrDevice s);

// logits (B, V) with −∞ where bits (B, ⌈V / 32⌉), uint32, have none.
array mask_logits(const array& logits, const array& bits, mx::StreamOrDevice s);

// x (B, H, T, D) rotated by halves. Empty where no kernel takes it.
std::vector<array> rotate(
    const array& x, int dims, std::optional<float> base, float scale, int offset, const std::optional<array>& freqs,
    mx::StreamOrDevice s);

// silu(gate) x, or by gelu's approximation with tanh. Empty where no kernel takes it.
std::vector<array> gate(bool gelu, const array& gate, const array& x, mx::StreamOrDevice s);

// −log softmax(logits)[target] along the last axis: logits (…, V), targets (…). Empty where no kernel takes it.
std::vector<array> cross_entropy(const array& logits, const array& targets, mx::StreamOrDevice s);

// base + scale · x a b: base (…, N), x (…, K), a (K, R), b (R, N). Empty where no kernel takes it.
std::vector<array> low_rank(
    const array& base, const array& x, const array& a, const array& b, float scale, mx::StreamOrDevice s);

// x + delta, and its RMS norm.
std::vector<array> add_rms_norm(
    const array& x, const array& delta, const array& weight, float eps, mx::StreamOrDevice s);

// Queries (B, H, 1, D), keys and values (B, Hkv, 1, D) of a joint projection (B, 1, (H + 2 Hkv) D), queries and keys
// normalized where there are weights for it, and rotated by halves. Empty where no kernel takes it.
std::vector<array> rotate_heads(
    const array& joint, int heads, int kv_heads, const std::optional<array>& query_weight,
    const std::optional<array>& key_weight, float eps, int rotated, std::optional<float> base, float scale, int offset,
    const std::optional<array>& freqs, mx::StreamOrDevice s);

// One token through its experts: see cuda/experts.h; `stacks` as in description.h. Empty where no kernel takes these.
std::vector<array> experts_token(
    const array& x, const array& experts, const array& weights, const std::vector<int>& stacks, mx::StreamOrDevice s);
std::vector<array> route_tokens(const array& logits, int count, bool normalize, mx::StreamOrDevice s);

// One token x (1, 1, D) through a gated feed-forward block; `feed` as in description.h. Empty where no kernel takes it.
std::vector<array> feed_token(const array& x, const std::vector<int>& feed, mx::StreamOrDevice s);

// One token through attention: queries, keys and values, norms over heads, rotation, attention to the first `used` rows of
// keys and values (1, Hkv, S, D) and itself, the last matrix; `attention` as in description.h. Its key and value are written in
// place, to `row`: behind those, or one of them, which is no longer attended to. Where ranks have some heads each, results are
// summed over them. Empty where no kernel takes it.
std::vector<array> attend_token(
    const array& x, const array& keys, const array& values, int used, int row, int offset, const std::vector<int>& attention,
    mx::StreamOrDevice s);

// Attention of one token of each of several sequences: see cuda/rows.h; `heads` as in description.h.
std::vector<array> attend_rows(
    const array& joint, const array& keys, const array& values, int used, const std::vector<int>& starts,
    const std::vector<int>& positions, const std::vector<int>& heads, mx::StreamOrDevice s = {});

// One token through a layer: norm, attention, norm, feed-forward block, norms of what both give where there are such, on
// x + delta → what the block's result still has to be added to, and that result; `layer` as in description.h. Where ranks have some heads, they have a part of the
// feed-forward block, too. Empty where no kernel takes it.
std::vector<array> layer_token(
    const array& x, const std::optional<array>& delta, const array& keys, const array& values, int used, int row, int offset,
    const std::vector<int>& layer, mx::StreamOrDevice s);

// The same of one token of each of several sequences, x (B, 1, D): see cuda/rows_layer.h.
std::vector<array> layer_rows(
    const array& x, const std::optional<array>& delta, const array& keys, const array& values, int used,
    const std::vector<int>& starts, const std::vector<int>& positions, const std::vector<int>& layer, mx::StreamOrDevice s);

// mx::distributed::all_sum and all_gather, through the memory of GPUs where the group has joined that (cuda/peers.h).
array all_sum(const array& x, const std::optional<mx::distributed::Group>& group, mx::StreamOrDevice s);
array all_gather(const array& x, const std::optional<mx::distributed::Group>& group, mx::StreamOrDevice s);

// MLX's products of these names, by kernels of ours where those are faster.
array quantized_matmul(
    const array& x, const array& w, const array& scales, const std::optional<array>& biases, bool transpose,
    std::optional<int> group_size, std::optional<int> bits, const std::string& mode, mx::StreamOrDevice s);
array gather_qmm(
    const array& x, const array& w, const array& scales, const std::optional<array>& biases,
    const std::optional<array>& lhs_indices, const std::optional<array>& rhs_indices, bool transpose,
    std::optional<int> group_size, std::optional<int> bits, const std::string& mode,
    const std::optional<array>& global_scale, bool sorted, mx::StreamOrDevice s);
array matmul(const array& a, const array& b, mx::StreamOrDevice s);
array gather_mm(
    const array& a, const array& b, const std::optional<array>& lhs_indices, const std::optional<array>& rhs_indices,
    bool sorted, mx::StreamOrDevice s);

// Matrices in ggml's blocks: cpu/block_primitives.h says what these are.
array block_matmul(const array& x, const array& w, int type, mx::StreamOrDevice s);
array gather_block_mm(const array& x, const array& w, const array& indices, int type, mx::StreamOrDevice s);
array unpack_blocks(const array& w, int type, mx::Dtype dtype, mx::StreamOrDevice s);
array block_vectors(int type, mx::StreamOrDevice s);

} // namespace mlxlm::ours
