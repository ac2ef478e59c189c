// Which of the instruction sets that the kernels are compiled for this machine has.
#pragma once

namespace mlxlm::cpu {

// In rising order. `plain` is what every machine of the architecture has: SSE2 on x86-64, NEON on arm64.
enum class Isa {
  plain,
  avx2, // with FMA and F16C
  avx512, // F, BW, DQ, VL
  avx512_bf16, // and BF16, VNNI
};

// The best one, or a lesser one that MLXLM_CPU_ISA names (plain, avx2, avx512, avx512_bf16).
Isa isa();

// Whether kernels of ours are used at all: not where MLXLM_CPU_KERNELS is 0, or they were turned off.
bool enabled();
void enable(bool on);

} // namespace mlxlm::cpu

// Declares a table of kernels that is compiled once for every instruction set, each in its own namespace.
#define MLXLM_PER_ISA(Table, name) \
  namespace plain { \
  extern const Table name; \
  } \
  namespace avx2 { \
  extern const Table name; \
  } \
  namespace avx512 { \
  extern const Table name; \
  } \
  namespace avx512_bf16 { \
  extern const Table name; \
  }

// The one of them for this machine.
#if defined(__x86_64__)
#define MLXLM_OF_ISA(name) \
  (isa() == Isa::avx512_bf16 ? avx512_bf16::name \
       : isa() == Isa::avx512 ? avx512::name \
       : isa() == Isa::avx2   ? avx2::name \
                              : plain::name)
#else
#define MLXLM_OF_ISA(name) plain::name
#endif
