// One token through its experts, and the choice of them, as one CUDA kernel each.
#pragma once

#include "cpu/token_primitives.h"

namespace mlxlm::cuda {

// What experts are made of: gate and up (experts, M, K), down (experts, K, M).
struct Experts {
  cpu::Matrix gate;
  cpu::Matrix up;
  cpu::Matrix down;
  bool gelu; // by tanh; else silu
};

// x (1, 1, K), the experts that it uses and their weights, (…, k) each → the weighted sum of their results, (1, 1, K). Nothing
// where no kernel takes these.
std::optional<array> experts_token(
    const array& x, const array& chosen, const array& weights, const Experts& experts, mx::StreamOrDevice s);

// logits (…, E) → the experts of the `count` highest probabilities, lowest first, and these: (…, count) each. Empty where no
// kernel takes these.
std::vector<array> route_tokens(const array& logits, int count, bool normalize, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
