// What is done to rows between the products of a layer and behind the last: norms, rotations, gates, softmax. No MLX here.
#pragma once

#include <cstdint>

#include "cpu/dtypes.h"
#include "cpu/isa.h"

namespace mlxlm::cpu {

// x / √(mean(x²) + eps) · weight, sums taken in float32.
struct Norm {
  Float type; // of rows and weight
  int64_t dims;
  const void* weight; // may be null
  float eps;
};

// A rotation of a row's first `rotated` numbers, those of the first half with those of the second. The rest stays.
struct Rotation {
  Float type;
  int64_t dims;
  int64_t rotated;
  const float* cosines; // rotated / 2 of them
  const float* sines;
};

enum class Gate : uint8_t {
  silu, // g σ(g)
  gelu, // by tanh
};

// What is compiled per instruction set.
struct RowKernels {
  // out = norm of x + delta, which itself goes to sum; delta and sum may both be null.
  void (*norm)(const Norm& norm, const void* x, const void* delta, void* sum, void* out);
  // out = turned x, of its norm where there is one.
  void (*rotate)(const Rotation& rotation, const Norm* norm, const void* x, void* out);
  // out = gate(g) · x
  void (*gate)(Gate gate, Float type, const void* g, const void* x, void* out, int64_t count);
  // out = a + b
  void (*add)(Float type, const void* a, const void* b, void* out, int64_t count);
  // out = e^x / Σ e^x
  void (*softmax)(Float type, const void* x, void* out, int64_t count);
  // out = log Σ e^x, one number
  void (*log_sum_exp)(Float type, const void* x, void* out, int64_t count);
  // Where the highest number is, the first of equals. NaN is higher than all others. @pre count > 0
  uint32_t (*argmax)(Float type, const void* x, int64_t count);
};

MLXLM_PER_ISA(RowKernels, row_kernels)

const RowKernels& row_kernels();

} // namespace mlxlm::cpu
