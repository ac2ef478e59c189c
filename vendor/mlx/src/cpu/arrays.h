// What CPU primitives ask of MLX's arrays.
#pragma once

#include <vector>

#include "abi.h"
#include "cpu/dtypes.h"
#include "mlx/backend/cpu/encoder.h"

namespace mlxlm::cpu {

// Whether kernels know numbers of this kind.
bool is_known(mx::Dtype dtype);

// @pre is_known
Float float_of(mx::Dtype dtype);

// Element offsets of every position along an array's axes but the last `skipped`.
std::vector<int64_t> offsets_of(const mx::Shape& shape, const mx::Strides& strides, int skipped);

// The array, or a copy of it whose elements lie in order. The copy is made when the stream gets there.
array in_order(const array& a, mx::cpu::CommandEncoder& encoder);

} // namespace mlxlm::cpu
