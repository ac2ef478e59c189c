// Which of the instruction sets that the kernels are compiled for this machine has.
#pragma once

namespace mlxlm::cpu {

// In rising order. `plain` is what every machine of the architecture has: SSE2 on x86-64, NEON on arm64.
enum class Isa {
  plain,
  avx2, // with FMA and F16C
  avx512, // F, BW, DQ, VL
  avx512_bf16, // and BF16
};

// The best one, or a lesser one that MLXLM_CPU_ISA names (plain, avx2, avx512, avx512_bf16).
Isa isa();

// Whether kernels of ours are used at all: not where MLXLM_CPU_KERNELS is 0, or they were turned off.
bool enabled();
void enable(bool on);

} // namespace mlxlm::cpu
