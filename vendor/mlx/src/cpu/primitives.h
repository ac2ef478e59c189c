// MLX operations on the CPU with kernels of ours: vectors and all cores where MLX's loops are scalar and on one. Each
// has the arguments and results of the MLX function of its name.
#pragma once

#include "abi.h"

namespace mlxlm::cpu {

// Whether ops on this stream are ours: a CPU stream, and kernels not turned off.
bool takes(mx::StreamOrDevice s);

// float32 goes to BLAS, but for few rows.
array matmul(const array& a, const array& b, mx::StreamOrDevice s);

array gather_mm(
    const array& a, const array& b, const std::optional<array>& lhs_indices, const std::optional<array>& rhs_indices,
    bool sorted, mx::StreamOrDevice s);

array quantized_matmul(
    const array& x, const array& w, const array& scales, const std::optional<array>& biases, bool transpose,
    std::optional<int> group_size, std::optional<int> bits, const std::string& mode, mx::StreamOrDevice s);

array gather_qmm(
    const array& x, const array& w, const array& scales, const std::optional<array>& biases,
    const std::optional<array>& lhs_indices, const std::optional<array>& rhs_indices, bool transpose,
    std::optional<int> group_size, std::optional<int> bits, const std::string& mode, bool sorted,
    mx::StreamOrDevice s);

} // namespace mlxlm::cpu
