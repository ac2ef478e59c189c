// Kernels on ggml's blocks for one instruction set. No MLX here.
#pragma once

#include "cpu/block_types.h"
#include "cpu/dtypes.h"
#include "cpu/isa.h"

namespace mlxlm::cpu {

struct BlockKernels {
  // The numbers of so many blocks.
  void (*unpack)(BlockType type, const BlockTables& tables, const uint8_t* from, int64_t blocks, float* to);
  // Their product with as many of x, whose sums over each sixteen are there too.
  float (*dot)(
      BlockType type, const BlockTables& tables, const uint8_t* from, int64_t blocks, const float* x,
      const float* sums);
  // Floats in another type, as many as a multiple of 16.
  void (*narrow)(Float type, const float* from, int64_t count, void* to);
};

MLXLM_PER_ISA(BlockKernels, block_kernels)

} // namespace mlxlm::cpu
