#include "cpu/gradients.h"

namespace mlxlm::cpu {

const GradientKernels& gradient_kernels() {
  return MLXLM_OF_ISA(gradient_kernels);
}

} // namespace mlxlm::cpu
