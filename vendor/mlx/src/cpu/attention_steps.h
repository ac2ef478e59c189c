// Attention in single steps, for transformations: each step has a gradient, and its products are ours.
#pragma once

#include "abi.h"

namespace mlxlm::cpu {

// In half precision, where MLX's own products are what training would wait for; float32 goes to BLAS as it is.
bool takes_attention_steps(const array& q, const array& k, const array& v, const std::string& mode, mx::StreamOrDevice s);

// q (B, H, T, D), k and v (B, H / group, S, D), rounded where MLX's own steps round.
array attention_steps(
    const array& q, const array& k, const array& v, float scale, bool causal, const std::optional<array>& mask,
    const std::optional<array>& sinks, mx::StreamOrDevice s);

} // namespace mlxlm::cpu
