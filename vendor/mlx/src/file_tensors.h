// Tensors that are still in their files: a slice of one is again one, and reads only its own bytes.
#pragma once

#include "abi.h"
#include "file_reads.h"
#include "reshaped.h"

namespace mlxlm {

// The tensor of `like`'s shape and dtype, on its stream, whose bytes begin at `start`; `like`, MLX's own tensor of the
// file, where there is no way of ours to bring it to the GPU.
array file_tensor(const array& like, std::shared_ptr<OpenFile> file, size_t start);

// A part of such a tensor, which is not read yet.
array slice_file_tensor(const array& a, const Box& box);

// Such a tensor in another shape; nothing where its elements do not lie so that strides can say it.
std::optional<array> reshape_file_tensor(const array& a, const mx::Shape& shape);

} // namespace mlxlm
