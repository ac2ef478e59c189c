#include "cpu/rows.h"

namespace mlxlm::cpu {

const RowKernels& row_kernels() {
#if defined(__x86_64__)
  switch (isa()) {
    case Isa::avx512_bf16:
      return avx512_bf16::row_kernels;
    case Isa::avx512:
      return avx512::row_kernels;
    case Isa::avx2:
      return avx2::row_kernels;
    default:
      break;
  }
#endif
  return plain::row_kernels;
}

} // namespace mlxlm::cpu
