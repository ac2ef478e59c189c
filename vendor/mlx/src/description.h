// Layers, and parts of them, as src/mlx/token-steps.ts describes them: each a list of int32, whose order these readers follow.
// A tensor is its handle, a real number the bits of its float32.
#pragma once

#include "cpu/token_primitives.h"
#include "cuda/experts.h"
#include "cuda/rows.h"

namespace mlxlm {

using Words = std::vector<int>;

// The rows of keys and values that a token attends to and writes.
struct TokenRows {
  array keys; // (B, Hkv, S, D)
  array values;
  int used; // rows that have tokens
  int row; // the one that is written: behind those, or one of them, which it replaces
  int offset; // the token's position
};

// Each throws std::invalid_argument where the list is no such description.
cpu::FeedForward feed_forward_of(const Words& words);
cpu::TokenAttention attention_of(const Words& words, TokenRows rows);
cpu::TokenLayer layer_of(const Words& words, TokenRows rows);
cuda::AttendedRows attended_rows_of(const Words& words, array keys, array values, cuda::SequenceRows sequences);
cuda::Experts experts_of(const Words& words);

} // namespace mlxlm
