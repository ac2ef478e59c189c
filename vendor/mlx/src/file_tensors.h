// Tensors that are still in their files: a slice of one is again one, and reads only its own bytes.
#pragma once

#include "abi.h"
#include "file_reads.h"

namespace mlxlm {

// The tensor of `like`'s shape and dtype, on its stream, whose bytes begin at `start`; `like`, MLX's own tensor of the
// file, where there is no way of ours to bring it to the GPU.
array file_tensor(const array& like, std::shared_ptr<OpenFile> file, size_t start);

// Whether an array is in files and not read yet: one tensor, or several joined, cast or with their axes in another order.
bool is_in_files(const array& a);

// a[from:to] of such an array, steps of 1, 0 ≤ from ≤ to ≤ shape. Nothing along the axis on which tensors were joined: such
// slices are there to be views of the joint one.
std::optional<array> slice_in_files(const array& a, const mx::Shape& from, const mx::Shape& to, mx::StreamOrDevice s);

} // namespace mlxlm
