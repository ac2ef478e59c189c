// Low-rank updates (LoRA) on CUDA, forward and backward: a few kernels that read each activation once and in its own dtype.
#pragma once

#include "abi.h"

namespace mlxlm::cuda {

// base (…, N), x (…, K), a (K, R) and b (R, N) in float32.
bool takes_low_rank(const array& base, const array& x, const array& a, const array& b, mx::StreamOrDevice s);

// base + scale · x a b, the product in float32 and rounded to the base's dtype. It has a gradient.
array low_rank(
    const array& base, const array& x, const array& a, const array& b, float scale, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
