// The rules of recurrent layers on Metal.
#pragma once

#include "recurrent.h"

namespace mlxlm::metal {

// A Metal stream, keys of whole SIMD groups, and a kernel that has shown on a small case that it is right: where the
// machine's compiler refuses it, operations answer.
bool takes_recurrence(const ours::Recurrence& r, mx::StreamOrDevice s);
std::vector<array> recurrence(const ours::Recurrence& r, mx::StreamOrDevice s);

} // namespace mlxlm::metal
