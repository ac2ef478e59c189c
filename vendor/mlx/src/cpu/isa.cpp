#include "cpu/isa.h"

#include <atomic>

#include "environment.h"

namespace mlxlm::cpu {
namespace {

Isa best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni")) {
    return Isa::avx512_bf16;
  }
  return avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::plain;
#else
  return Isa::plain;
#endif
}

Isa chosen() {
  Isa found = best();
  auto wanted = environment("MLXLM_CPU_ISA");
  Isa named = wanted == "plain" ? Isa::plain
      : wanted == "avx2"        ? Isa::avx2
      : wanted == "avx512"      ? Isa::avx512
                                : Isa::avx512_bf16;
  return named < found ? named : found;
}

} // namespace

Isa isa() {
  static const Isa value = chosen();
  return value;
}

namespace {

std::atomic<bool>& kernels_enabled() {
  static std::atomic<bool> value = environment("MLXLM_CPU_KERNELS") != "0";
  return value;
}

} // namespace

bool enabled() {
  return kernels_enabled();
}

void enable(bool on) {
  kernels_enabled() = on;
}

} // namespace mlxlm::cpu
