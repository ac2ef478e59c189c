// One token of each of several sequences through a whole layer, as one operation.
#pragma once

#include "cpu/token_primitives.h"

namespace mlxlm::cuda {

// As cpu::layer_token, of x (B, 1, K): each sequence's first row of keys and values (B, Hkv, S, D) is in `starts`. Where ranks have a
// part each, the result that is still to be added is a sum over them. Empty where no kernel takes these.
std::vector<array> layer_rows(
    const array& x, const std::optional<array>& delta, cpu::TokenLayer layer, std::vector<int> starts, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
