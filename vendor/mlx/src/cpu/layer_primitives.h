// What a layer does between its products, on the CPU: norms, rotations, gates, attention, each in one pass and on all
// cores. Each comes with the question whether it takes these arguments: a CPU stream, shapes that it is made for, and no
// transformation under way (these have no gradient).
#pragma once

#include "abi.h"
#include "cpu/rotation_table.h"

namespace mlxlm::cpu {

bool takes_rms_norm(const array& x, const std::optional<array>& weight, mx::StreamOrDevice s);
array rms_norm(const array& x, const std::optional<array>& weight, float eps, mx::StreamOrDevice s);

bool takes_add_rms_norm(const array& x, const array& delta, const array& weight, mx::StreamOrDevice s);
std::vector<array> add_rms_norm(
    const array& x, const array& delta, const array& weight, float eps, mx::StreamOrDevice s);

bool takes_rotate(const array& x, int dims, const std::optional<array>& freqs, mx::StreamOrDevice s);
array rotate(
    const array& x, int dims, const Angles& angles, const std::optional<array>& freqs, mx::StreamOrDevice s);

bool takes_rotate_heads(
    const array& joint, int dims, int rotated, const std::optional<array>& query_weight,
    const std::optional<array>& key_weight, const std::optional<array>& freqs, mx::StreamOrDevice s);
std::vector<array> rotate_heads(
    const array& joint, int heads, int kv_heads, const std::optional<array>& query_weight,
    const std::optional<array>& key_weight, float eps, int rotated, const Angles& angles,
    const std::optional<array>& freqs, mx::StreamOrDevice s);

bool takes_gate(const array& gate, const array& x, mx::StreamOrDevice s);
array gate(bool gelu, const array& gate, const array& x, mx::StreamOrDevice s);

bool takes_attention(
    const array& q, const array& k, const array& v, const std::string& mode, const std::optional<array>& mask,
    const std::optional<array>& sinks, mx::StreamOrDevice s);
array attention(
    const array& q, const array& k, const array& v, float scale, bool causal, const std::optional<array>& mask,
    const std::optional<array>& sinks, mx::StreamOrDevice s);

} // namespace mlxlm::cpu
