// Several operations as one. MLX's own work for an operation takes as long as the launch of its kernel, and a layer of a batch
// has some twenty: asked for and computed within one, they cost the launches alone.
#pragma once

#include <functional>

#include "abi.h"

namespace mlxlm::cuda {

// What the operations are, given inputs that have been computed. Called when the results are.
using Operations = std::function<std::vector<array>(const std::vector<array>& inputs)>;

// Whether MLX has to compute an array, or wait for it, ahead of an operation that takes it: then it is among the inputs.
inline bool is_awaited(const array& a) {
  return a.status() == array::Status::unscheduled || a.event().valid();
}

// Results of these shapes, in rows, and dtypes. No gradient.
std::vector<array> composite(
    std::vector<mx::Shape> shapes, std::vector<mx::Dtype> dtypes, std::vector<array> inputs, Operations operations, mx::Stream stream);

} // namespace mlxlm::cuda
