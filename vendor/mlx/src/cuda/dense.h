// Products of a few rows with a matrix in 16 bits. cuBLAS needs as long on the GPU, but MLX's way to it costs the host more than
// that: descriptors, a choice among kernels and a capture for each product.
#pragma once

#include "abi.h"

namespace mlxlm::cuda {

// The transpose of a matrix that has been computed, without an operation.
array transposed(const array& w);

// x (…, K) of 2 to 32 rows times w (K, N), whose columns lie one behind the other: the transpose of a layer's weight.
bool takes_dense_rows(const array& x, const array& w, mx::StreamOrDevice s);
array dense_rows(const array& x, const array& w, mx::StreamOrDevice s);

// So many rows (rows, K) times a layer's weight w (N, K).
bool takes_dense_weight(int rows, mx::Dtype dtype, const array& w, mx::StreamOrDevice s);

// Their product before it is whole: (rows, N), or so many parts of it in float32, (parts, rows, N).
int dense_parts(int rows, const array& w, mx::StreamOrDevice s);
array dense_row_parts(const array& x, const array& w, mx::StreamOrDevice s);

// The product with w (2 N, K), gates and then values: what the gates let through, (rows, N).
bool takes_gated_rows(int rows, const array& w, mx::StreamOrDevice s);
array gated_rows(const array& x, const array& w, bool gelu, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
