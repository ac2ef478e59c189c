// Functions of vectors, for one instruction set: see vec.h.
#pragma once

#include "cpu/vec.h"

namespace mlxlm::cpu::MLXLM_ISA {

constexpr float minus_infinity = -__builtin_inff();

// e^x, off by less than 2 units in the last place; 0 below the smallest normal number, -∞ included.
inline F exp(F x) {
  constexpr float least = -87.33f;
  constexpr float most = 88.37f;
  constexpr float shift = 0x1.8p23f; // added to a number, it leaves it rounded to an integer in the low bits
  F bounded = x < least ? splat(least) : x;
  bounded = bounded > most ? splat(most) : bounded;
  F shifted = bounded * 1.44269504f + shift;
  F n = shifted - shift;
  // ln 2 in two parts, of which n times the first is exact.
  F r = bounded - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  // Taylor's series up to r⁷: |r| is at most ln 2 / 2.
  F p = r * splat(1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  F power = float_of_bits((bits_of(shifted) - bits_of(shift) + 127) << 23);
  F result = p * power;
  result = x > most ? splat(__builtin_inff()) : result;
  return x < least ? F{} : result;
}

// 1 / (1 + e^-x)
inline F sigmoid(F x) {
  return 1.0f / (1.0f + exp(-x));
}

// log(1 + e^x), by the series of atanh at e / (2 + e), which is a third at most.
inline F softplus(F x) {
  F e = exp(x < 0.0f ? x : -x);
  F z = e / (e + 2.0f);
  F square = z * z;
  F p = square * splat(1.0f / 13) + 1.0f / 11;
  p = p * square + 1.0f / 9;
  p = p * square + 1.0f / 7;
  p = p * square + 1.0f / 5;
  p = p * square + 1.0f / 3;
  p = p * square + 1.0f;
  return (x > 0.0f ? x : F{}) + 2.0f * z * p;
}

// x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), which is x σ(2 …).
inline F gelu_by_tanh(F x) {
  return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
}

inline F larger(F a, F b) {
  return a > b ? a : b;
}

} // namespace mlxlm::cpu::MLXLM_ISA
