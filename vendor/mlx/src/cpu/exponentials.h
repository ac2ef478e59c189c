// The sum that softmax divides by, for one instruction set.
#pragma once

#include "cpu/math.h"
#include "cpu/vectors.h"

namespace mlxlm::cpu::MLXLM_ISA {

// A row's largest number and Σ e^(x - largest).
struct Exponentials {
  float largest;
  float sum;
};

inline Exponentials exponentials(Float type, const void* x, int64_t count) {
  F most = splat(minus_infinity);
  // Lanes behind the row's end hold nothing, not 0.
  for_vectors(0, count, [&](int64_t i, int some) {
    F value = get(type, x, i, some);
    for (int lane = some; lane < lanes; ++lane) {
      value[lane] = minus_infinity;
    }
    most = larger(most, value);
  });
  float largest = max(most);
  F total = {};
  for_vectors(0, count, [&](int64_t i, int some) {
    F value = exp(get(type, x, i, some) - largest);
    for (int lane = some; lane < lanes; ++lane) {
      value[lane] = 0;
    }
    total += value;
  });
  return {largest, cpu::MLXLM_ISA::sum(total)};
}

} // namespace mlxlm::cpu::MLXLM_ISA
