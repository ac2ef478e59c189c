// One token of each of several sequences through a whole layer, as one operation.
#pragma once

#include "cpu/token_primitives.h"
#include "cuda/rows.h"

namespace mlxlm::cuda {

// As cpu::layer_token, of x (B, 1, K) and keys and values (B, Hkv, S, D). Where ranks have a part each, the result that is still to be
// added is a sum over them. Empty where no kernel takes these.
std::vector<array> layer_rows(
    const array& x, const std::optional<array>& delta, cpu::TokenLayer layer, SequenceRows sequences, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
