// The operations of a layer while gradients are traced: forward by the same kernels as always, backward by one each.
#pragma once

#include "abi.h"
#include "cpu/rotation_table.h"

namespace mlxlm::cpu {

array rms_norm_with_gradient(const array& x, const std::optional<array>& weight, float eps, mx::StreamOrDevice s);

array rotate_with_gradient(
    const array& x, int dims, const Angles& angles, const std::optional<array>& freqs, mx::StreamOrDevice s);

array gate_with_gradient(bool gelu, const array& gate, const array& x, mx::StreamOrDevice s);

// −log softmax(logits)[target] along the last axis: logits (…, V), targets (…) of integers → (…). Has a gradient.
bool takes_cross_entropy(const array& logits, const array& targets, mx::StreamOrDevice s);
array cross_entropy(const array& logits, const array& targets, mx::StreamOrDevice s);

} // namespace mlxlm::cpu
