// ggml's types of blocks: a stretch of a matrix's row with its factors beside it, as GGUF files have them.
#pragma once

#include <cstdint>

namespace mlxlm::cpu {

// By their numbers in files.
enum class BlockType : int {
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  q8_k = 15,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  iq1_m = 29,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39,
  nvfp4 = 40,
  q1_0 = 41,
  q2_0 = 42,
};

struct BlockSize {
  int numbers;
  int bytes;
};

// Of a type that kernels know; else numbers is 0.
BlockSize block_size(int type);

// What codes of a type stand for.
struct BlockTables {
  // Vectors of eight numbers, or of four, as bytes: 8 v ± 1 is what the types of one bit come to, v is here.
  const void* grid;
  // For a byte of signs eight bytes, all ones for a minus; and for seven signs, whose eighth makes their number even.
  const uint64_t* signs;
  const uint64_t* even_signs;
};

BlockTables block_tables(BlockType type);

// The vectors of a type that chooses from a grid, `width` int8 each; none for other types.
struct BlockGrid {
  const int8_t* numbers;
  int count;
  int width;
};

BlockGrid block_grid(int type);

} // namespace mlxlm::cpu
