// What products of few rows and of many have in common.
#pragma once

#include "cpu/formats.h"
#include "cpu/product.h"

namespace mlxlm::cpu::MLXLM_ISA {

template <class Fmt>
constexpr bool is_dense = Fmt::scaling == Scaling::none;

inline int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
inline int64_t most(int64_t a, int64_t b) {
  return a > b ? a : b;
}

inline int64_t group_count(const Product& product, int64_t count) {
  return product.group ? (count + product.group - 1) / product.group : 0;
}

// A row of x as floats, with zeros up to `padded`.
inline void read_row(const Product& product, const void* x, int64_t from, int64_t padded, float* to) {
  int64_t k = 0;
  if (product.x_step == 1) {
    for (; k + lanes <= product.k; k += lanes) {
      store(to + k, load_as(product.type, x, from + k));
    }
    if (k < product.k) {
      F rest = load_some_as(product.type, x, from + k, product.k - k);
      std::memcpy(to + k, &rest, (product.k - k) * sizeof(float));
    }
  } else {
    for (; k < product.k; ++k) {
      to[k] = load_some_as(product.type, x, from + k * product.x_step, 1)[0];
    }
  }
  std::memset(to + product.k, 0, (padded - product.k) * sizeof(float));
}

// Two floats that are exact in bf16, as a pair: one of each, or one of each lane's.
template <class Number>
inline auto paired(Number low, Number high) {
  return bits_of(low) >> 16 | (bits_of(high) & 0xffff0000);
}

#if defined(__AVX512BF16__)
// total + low · low + high · high of each lane's pairs
inline F add_pairs(F total, U a, U b) {
  return (F)_mm512_dpbf16_ps((__m512)total, (__m512bh)a, (__m512bh)b);
}
#else
inline F add_pairs(F total, U, U) {
  return total;
}
#endif

} // namespace mlxlm::cpu::MLXLM_ISA
