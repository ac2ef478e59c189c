// Numbers as kernels store them, written and read one by one.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cpu/dtypes.h"

namespace mlxlm::check {

using cpu::Float;

// Steele, Lea and Flood 2014 (SplitMix).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  // In [0, count).
  int64_t below(int64_t count) {
    return static_cast<int64_t>(bits() % static_cast<uint64_t>(count));
  }
  // A multiple of 1/64 in [-2, 2), exact in every type.
  double number() {
    return static_cast<double>(below(256) - 128) / 64;
  }

 private:
  uint64_t state_;
};

inline int size_of(Float type) {
  return type == Float::f32 ? 4 : 2;
}

inline const char* name_of(Float type) {
  return type == Float::f32 ? "f32" : type == Float::f16 ? "f16" : "bf16";
}

// Half a unit in the last place, of 1, with some room for what is rounded on the way.
inline double precision_of(Float type) {
  return type == Float::f32 ? 1e-6 : type == Float::f16 ? 0x1p-10 : 0x1p-7;
}

// `value` must be exact in `type`, and a normal number, 0 or infinite.
inline void put(Float type, void* to, int64_t i, double value) {
  auto narrow = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &narrow, 4);
  if (type == Float::f32) {
    std::memcpy(static_cast<char*>(to) + i * 4, &bits, 4);
    return;
  }
  uint32_t sign = bits >> 16 & 0x8000;
  uint32_t f16 = std::isinf(value) ? sign | 0x7c00
      : value == 0                 ? sign
                                   : sign | ((bits & 0x7fffffff) - 0x38000000) >> 13;
  auto half = static_cast<uint16_t>(type == Float::bf16 ? bits >> 16 : f16);
  std::memcpy(static_cast<char*>(to) + i * 2, &half, 2);
}

inline double get(Float type, const void* from, int64_t i) {
  if (type == Float::f32) {
    float value;
    std::memcpy(&value, static_cast<const char*>(from) + i * 4, 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, static_cast<const char*>(from) + i * 2, 2);
  if (type == Float::bf16) {
    uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  int exponent = half >> 10 & 31;
  double mantissa = half & 1023;
  double size = exponent == 31 ? (mantissa != 0 ? NAN : INFINITY)
      : exponent == 0          ? mantissa * 0x1p-24
                               : (1024 + mantissa) * 0x1p-25 * (1u << exponent);
  return half & 0x8000 ? -size : size;
}

// The nearest number of the type, ties to even.
inline double rounded(Float type, double value) {
  if (type == Float::f32) {
    return static_cast<float>(value);
  }
  if (value == 0 || !std::isfinite(value)) {
    return value;
  }
  bool f16 = type == Float::f16;
  double unit = std::ldexp(1, std::max(std::ilogb(value), f16 ? -14 : -126) - (f16 ? 10 : 7));
  double nearest = std::nearbyint(value / unit) * unit;
  return std::abs(nearest) > (f16 ? 65504 : 0x1.FEp127) ? std::copysign(INFINITY, value) : nearest;
}

// 8-bit floats of 4 exponent bits, of which the highest code is no number.
inline double of_e4m3(uint8_t code) {
  int exponent = code >> 3 & 15;
  double size = exponent == 0 ? std::ldexp(code & 7, -9) : std::ldexp(8 + (code & 7), exponent - 10);
  return code & 0x80 ? -size : size;
}

inline double of_e2m1(int code) {
  constexpr double sizes[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  return code & 8 ? -sizes[code & 7] : sizes[code & 7];
}

} // namespace mlxlm::check
