// MLX operations on matrices in ggml's blocks: w (…, N, bytes of a row), uint8. `type` is the block's number in GGUF files.
// @throws std::invalid_argument for a type that there is not, and shapes that do not fit it
#pragma once

#include "abi.h"

namespace mlxlm::cpu {

// x (…, K) × wᵀ → (…, N), in x's dtype. On a GPU the matrix is unpacked first.
array block_matmul(const array& x, const array& w, int type, mx::StreamOrDevice s);

// x (…, M, K) × w[indices]ᵀ, w (experts, N, bytes) → (…, M, N): as gather_mm.
array gather_block_mm(const array& x, const array& w, const array& indices, int type, mx::StreamOrDevice s);

// The numbers, (…, K). The CPU unpacks them, whatever the stream.
array unpack_blocks(const array& w, int type, mx::Dtype dtype, mx::StreamOrDevice s);

// The vectors that a type's codes choose from, (count, width) int8.
array block_vectors(int type, mx::StreamOrDevice s);

} // namespace mlxlm::cpu
