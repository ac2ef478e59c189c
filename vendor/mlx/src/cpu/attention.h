// Attention of queries to keys and values, without the matrix of scores. Dao et al. 2022, arXiv:2205.14135. No MLX here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/dtypes.h"
#include "cpu/isa.h"

namespace mlxlm::cpu {

enum class Mask : uint8_t { none, boolean, f32, f16, bf16 };

// out = softmax(q kᵀ · scale + mask) v. q and out (B, H, T, D), k and v (B, H / group, S, D); sums are taken in float32.
struct Attention {
  Float type;
  int64_t batch;
  int64_t heads;
  int64_t group; // how many heads of queries share one of keys and values
  int64_t length; // T
  int64_t total; // S
  int64_t dims; // D: whole vectors of 16, at most largest_dims
  float scale;
  bool causal; // the last query belongs to the last key
  const void* q;
  const void* k;
  const void* v;
  void* out;
  // Elements from one of B, H, T to the next.
  int64_t q_strides[3];
  int64_t k_strides[3];
  int64_t v_strides[3];
  int64_t out_strides[3];
  Mask mask_kind;
  const void* mask; // (B, H, T, S)
  int64_t mask_strides[4];
  const void* sinks; // (H), of `type`: scores that take part in the softmax and attend to nothing; may be null
};

constexpr int64_t largest_dims = 256;

// How many keys are gone through at once.
constexpr int64_t key_block = 64;

// What is compiled per instruction set. Tasks are independent of each other.
struct AttentionKernels {
  // Many queries: rows of all the heads of a group side by side. Task: (batch, head of keys, block of queries).
  int64_t (*tasks)(const Attention& attention);
  void (*attend)(const Attention& attention, int64_t task, void* scratch);
  size_t (*scratch_bytes)(const Attention& attention);
  // One query a head, keys [from, to) of one head of keys `pair` (batch and head): for each head of its group the largest
  // score, the sum of the exponentials, the weighted sum of values (D), behind each other in `partial`.
  void (*attend_one)(const Attention& attention, int64_t pair, int64_t from, int64_t to, float* partial);
  // Puts the parts of one head of queries together, each `stride` floats behind the last, and writes the output.
  void (*combine)(const Attention& attention, int64_t batch, int64_t head, const float* partial, int64_t parts, int64_t stride);
};

MLXLM_PER_ISA(AttentionKernels, attention_kernels)

// Does it, on all threads.
void run(const Attention& attention);

} // namespace mlxlm::cpu
