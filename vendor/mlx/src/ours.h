// Operations that are ours: what MLX's C++ lacks, or does in more steps than decoding can afford. Namespace `ours` in the
// op table.
#pragma once

#include "abi.h"

namespace mlxlm::ours {

// a[…, start:stop, …] along one axis.
array slice_axis(const array& a, int axis, int start, int stop, mx::StreamOrDevice s);

// `a` with `update` written along one axis from `start` on.
array update_axis(const array& a, const array& update, int axis, int start, mx::StreamOrDevice s);

// x + delta, and its RMS norm.
std::vector<array> add_rms_norm(
    const array& x, const array& delta, const array& weight, float eps, mx::StreamOrDevice s);

// Queries (B, H, 1, D), keys and values (B, Hkv, 1, D) of a joint projection (B, 1, (H + 2 Hkv) D), queries and keys
// normalized where there are weights for it, and rotated by halves. Empty where no kernel takes it.
std::vector<array> rotate_heads(
    const array& joint, int heads, int kv_heads, const std::optional<array>& query_weight,
    const std::optional<array>& key_weight, float eps, int rotated, std::optional<float> base, float scale, int offset,
    const std::optional<array>& freqs, mx::StreamOrDevice s);

// mx::quantized_matmul, by a kernel of ours where that is faster.
array quantized_matmul(
    const array& x, const array& w, const array& scales, const std::optional<array>& biases, bool transpose,
    std::optional<int> group_size, std::optional<int> bits, const std::string& mode, mx::StreamOrDevice s);

} // namespace mlxlm::ours
