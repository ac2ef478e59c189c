// Kernels on ggml's blocks for one instruction set. No MLX here.
#pragma once

#include "cpu/block_types.h"
#include "cpu/dtypes.h"
#include "cpu/isa.h"

namespace mlxlm::cpu {

struct BlockKernels {
  // The numbers of so many blocks.
  void (*unpack)(BlockType type, const BlockTables& tables, const uint8_t* from, int64_t blocks, float* to);
  // How many bytes a row of whole blocks takes as `dots` reads it, and that form of it; `exact`: as floats.
  int64_t (*packed_bytes)(BlockType type, bool exact, int64_t numbers);
  void (*pack)(BlockType type, bool exact, const float* x, int64_t numbers, void* to);
  // A packed row's products with so many rows of blocks.
  void (*dots)(
      BlockType type, bool exact, const BlockTables& tables, const uint8_t* from, int64_t row_bytes, int64_t rows, int64_t blocks,
      const void* x, float* to);
  // Floats in another type, as many as a multiple of 16.
  void (*narrow)(Float type, const float* from, int64_t count, void* to);
};

MLXLM_PER_ISA(BlockKernels, block_kernels)

} // namespace mlxlm::cpu
