// Logits with −∞ where a mask has no bit. No gradient: the question answers no while one is taken.
#pragma once

#include "abi.h"

namespace mlxlm::cpu {

bool takes_mask_logits(const array& logits, const array& bits, mx::StreamOrDevice s);

// logits (B, V); bits (B, ⌈V / 32⌉) uint32.
array mask_logits(const array& logits, const array& bits, mx::StreamOrDevice s);

} // namespace mlxlm::cpu
