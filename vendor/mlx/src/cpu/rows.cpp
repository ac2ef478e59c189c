#include "cpu/rows.h"

namespace mlxlm::cpu {

const RowKernels& row_kernels() {
  return MLXLM_OF_ISA(row_kernels);
}

} // namespace mlxlm::cpu
