// softmax and logsumexp along the last axis, in one pass over all cores, sums taken in float32. Like a layer's other
// primitives they have no gradient: the questions answer no while one is taken.
#pragma once

#include "abi.h"

namespace mlxlm::cpu {

bool takes_softmax(const array& x, const std::vector<int>& axes, mx::StreamOrDevice s);

array softmax(const array& x, mx::StreamOrDevice s);

// (…, 1)
array logsumexp(const array& x, mx::StreamOrDevice s);

} // namespace mlxlm::cpu
