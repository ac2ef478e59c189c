// What kernels of attention ask about heads.
#pragma once

#include "cpu/token_primitives.h"

namespace mlxlm::cuda {

// Sizes that the kernels are written for.
bool heads_fit(const cpu::Heads& heads);

// The weights of norms over heads, where there are such, and the wavelengths of a rotation.
bool weights_fit(
    const cpu::Heads& heads, const std::optional<array>& query_weight, const std::optional<array>& key_weight,
    const std::optional<array>& freqs, mx::Dtype dtype);

// A weight (count) that a kernel can read as it lies.
bool is_weight(const array& weight, int64_t count, mx::Dtype dtype);

// Queries of one head of keys that a block takes: registers hold four.
int heads_a_block(const cpu::Heads& heads);

// What the text of cuda/attention_parts.h's callers names: whether heads have norms and wavelengths of their own, and where.
std::string head_defines(bool normed, bool by_freqs);

// The sizes that a step's attention is told: one array serves all its layers of a kind. `many` are copied to the GPU.
array sizes_of_step(const std::vector<int>& sizes, bool many, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
