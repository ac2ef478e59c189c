// Slices of what is made of tensors that are still in their files: they read no more of the files than they have.
#pragma once

#include <optional>

#include "abi.h"
#include "reshaped.h"

namespace mlxlm {

// Whether nothing is read yet of an array that is in files: a tensor of one, or some joined, scaled, cast, in another shape
// or with their axes in another order. Of a product the first operand is looked at.
bool is_in_files(const array& a);

// A part of such an array: the same operations on parts of the tensors. Where a reshape is cut inside of what was a row,
// these rows are read whole. Nothing where that would not do. 0 ≤ from ≤ to ≤ shape.
std::optional<array> slice_in_files(const array& a, const Box& box, mx::StreamOrDevice s);

} // namespace mlxlm
