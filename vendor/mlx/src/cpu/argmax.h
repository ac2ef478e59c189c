// Where the highest number of each row is. MLX compares one number after the other, and converts each of half precision.
#pragma once

#include "abi.h"

namespace mlxlm::cpu {

bool takes_argmax(const array& x, int axis, mx::StreamOrDevice s);

// x (…, N) → (…, 1) uint32: the first of equals.
array argmax(const array& x, mx::StreamOrDevice s);

} // namespace mlxlm::cpu
