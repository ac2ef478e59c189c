// The gradients of what is done to rows (rows.h), and the loss behind the last. No MLX here.
#pragma once

#include "cpu/rows.h"

namespace mlxlm::cpu {

// What is compiled per instruction set. Everything is computed in float32 and rounded once.
struct GradientKernels {
  // out = the norm's gradient by x, from the slope of its result.
  void (*norm)(const Norm& norm, const void* x, const void* slope, void* out);
  // The gradients of gate(g) · x by g and by x.
  void (*gate)(
      Gate gate, Float type, const void* g, const void* x, const void* slope, void* of_g, void* of_x, int64_t count);
  // out = log Σ e^x - x[target], one number; no number where there is no such target.
  void (*cross_entropy)(Float type, const void* x, int64_t target, void* out, int64_t count);
  // out = (softmax(x), less 1 at the target) · slope, which is one number.
  void (*cross_entropy_slope)(
      Float type, const void* x, int64_t target, const void* slope, void* out, int64_t count);
};

MLXLM_PER_ISA(GradientKernels, gradient_kernels)

const GradientKernels& gradient_kernels();

} // namespace mlxlm::cpu
