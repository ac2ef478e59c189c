// Vectors of the instruction set that a file is compiled for: 16, 8 or 4 float lanes. Built on the compilers' own vector
// types, so that arithmetic reads as arithmetic and NEON and SSE come from the same lines; intrinsics only where a type
// has no operator for it. (Google Highway was weighed against this: it brings the same vectors for more targets, but a
// dependency, its own dispatch macros around every function, and no wrapper for permutes of nibbles or bf16 dot products
// that these kernels live on.)
//
// A file that includes this is compiled once per instruction set, with MLXLM_ISA set to plain, avx2, avx512 or
// avx512_bf16. Everything in it must live in namespace mlxlm::cpu::MLXLM_ISA, and it must not instantiate templates of
// the standard library: the linker would merge those of one instruction set into another's code.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "cpu/dtypes.h"

namespace mlxlm::cpu::MLXLM_ISA {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

// Whether one instruction adds the products of two pairs of bf16 to a float.
#if defined(__AVX512BF16__)
constexpr bool has_bf16_dot = true;
#else
constexpr bool has_bf16_dot = false;
#endif

typedef float F __attribute__((vector_size(lanes * 4)));
typedef uint32_t U __attribute__((vector_size(lanes * 4)));
typedef int32_t I __attribute__((vector_size(lanes * 4)));
typedef uint16_t H __attribute__((vector_size(lanes * 2)));
typedef uint8_t B __attribute__((vector_size(lanes)));

// So many bytes ahead is what loops through memory ask for: the machine fetches ahead by itself, but not across pages.
constexpr int64_t fetched_ahead = 8192;

template <class V, class T>
inline V read(const T* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}
inline F load(const float* from) {
  return read<F>(from);
}
inline void store(float* to, F value) {
  std::memcpy(to, &value, sizeof(F));
}
inline F splat(float value) {
  return value - F{};
}
inline U bits_of(F value) {
  return (U)value;
}
inline F float_of_bits(U value) {
  return (F)value;
}
// Integers below 2³¹.
inline F float_of(U value) {
  return __builtin_convertvector((I)value, F);
}

// --- half precision

inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline F widen_bf16(H value) {
#if defined(__AVX512F__)
  // The compiler's own conversion goes by halves.
  return (F)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)value), 16);
#else
  return float_of_bits(__builtin_convertvector(value, U) << 16);
#endif
}

// Rounds to nearest even; a NaN stays one.
inline H narrow_bf16(F value) {
  U bits = bits_of(value);
  U rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  U is_nan = (U)(value != value);
  return __builtin_convertvector((rounded & ~is_nan) | (((bits >> 16) | 0x40) & is_nan), H);
}

inline F widen_f16(H value) {
#if defined(__AVX512F__)
  return (F)_mm512_cvtph_ps((__m256i)value);
#elif defined(__F16C__)
  return (F)_mm256_cvtph_ps((__m128i)value);
#elif defined(__aarch64__)
  return (F)vcvt_f32_f16((float16x4_t)value);
#else
  U bits = __builtin_convertvector(value, U);
  U sign = (bits & 0x8000) << 16;
  U rest = (bits & 0x7fff) << 13;
  // Half's exponent is 112 less: a product scales subnormals too. Infinity and NaN keep an exponent of ones.
  U special = (U)((I)(bits & 0x7c00) == 0x7c00);
  U scaled = bits_of(float_of_bits(rest) * splat(0x1p112f));
  return float_of_bits(sign | (scaled & ~special) | ((rest | 0x7f800000) & special));
#endif
}

inline H narrow_f16(F value) {
#if defined(__AVX512F__)
  return (H)_mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__)
  return (H)_mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__aarch64__)
  return (H)vcvt_f16_f32((float32x4_t)value);
#else
  H result;
  for (int i = 0; i < lanes; ++i) {
    uint32_t bits = bits_of(value[i]);
    uint32_t sign = (bits >> 16) & 0x8000;
    uint32_t size = bits & 0x7fffffff;
    uint32_t half;
    if (size > 0x7f800000) {
      half = 0x7e00;
    } else if (size >= 0x477ff000) { // rounds to 2¹⁶ or more
      half = 0x7c00;
    } else if (size < 0x38800000) {
      // Below 2⁻¹⁴: adding 0.5 leaves multiples of 2⁻²⁴ in the mantissa, rounded to nearest even.
      half = bits_of(float_of_bits(size) + 0.5f) - 0x3f000000;
    } else {
      half = (size - 0x38000000 + 0xfff + ((size >> 13) & 1)) >> 13;
    }
    result[i] = static_cast<uint16_t>(sign | half);
  }
  return result;
#endif
}

// `lanes` numbers of a type, from element i on.
inline F load_as(Float type, const void* from, int64_t i) {
  switch (type) {
    case Float::f32:
      return load(static_cast<const float*>(from) + i);
    case Float::bf16:
      return widen_bf16(read<H>(static_cast<const uint16_t*>(from) + i));
    default:
      return widen_f16(read<H>(static_cast<const uint16_t*>(from) + i));
  }
}

// The first `count` of them, zeros behind.
inline F load_some_as(Float type, const void* from, int64_t i, int count) {
#if defined(__AVX512F__)
  auto mask = static_cast<__mmask16>((1u << count) - 1);
  if (type == Float::f32) {
    return (F)_mm512_maskz_loadu_ps(mask, static_cast<const float*>(from) + i);
  }
  H halves = (H)_mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(from) + i);
  return type == Float::bf16 ? widen_bf16(halves) : widen_f16(halves);
#endif
  alignas(64) unsigned char buffer[sizeof(F)] = {};
  int size = type == Float::f32 ? 4 : 2;
  std::memcpy(buffer, static_cast<const unsigned char*>(from) + i * size, count * size);
  return load_as(type, buffer, 0);
}

inline void store_as(Float type, void* to, int64_t i, F value) {
  if (type == Float::f32) {
    store(static_cast<float*>(to) + i, value);
  } else {
    H half = type == Float::bf16 ? narrow_bf16(value) : narrow_f16(value);
    std::memcpy(static_cast<uint16_t*>(to) + i, &half, sizeof(H));
  }
}

inline void store_some_as(Float type, void* to, int64_t i, F value, int count) {
  if (type == Float::f32) {
    std::memcpy(static_cast<float*>(to) + i, &value, count * sizeof(float));
  } else {
    H half = type == Float::bf16 ? narrow_bf16(value) : narrow_f16(value);
    std::memcpy(static_cast<uint16_t*>(to) + i, &half, count * sizeof(uint16_t));
  }
}

// --- across lanes

// table[index[i]] in lane i; only the low bits of an index count.
inline F permute(F table, U index) {
#if defined(__AVX512F__)
  return (F)_mm512_permutexvar_ps((__m512i)index, (__m512)table);
#elif defined(__AVX2__)
  return (F)_mm256_permutevar8x32_ps((__m256)table, (__m256i)index);
#elif defined(__aarch64__)
  // The same for bytes, four of each lane.
  U bytes = index % lanes * 0x04040404 + 0x03020100;
  return (F)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)bytes);
#else
  F result;
  for (int i = 0; i < lanes; ++i) {
    result[i] = table[index[i] % lanes];
  }
  return result;
#endif
}

inline float sum(F value) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)value);
#else
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) {
      value[i] += value[i + half];
    }
  }
  return value[0];
#endif
}

inline float max(F value) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)value);
#else
  float result = value[0];
  for (int i = 1; i < lanes; ++i) {
    result = value[i] > result ? value[i] : result;
  }
  return result;
#endif
}

template <int... indices>
struct Indices {};
template <int n, int... indices>
struct FirstN : FirstN<n - 1, n - 1, indices...> {};
template <int... indices>
struct FirstN<0, indices...> {
  using type = Indices<indices...>;
};

// Exchanges the off-diagonal blocks of `half` lanes between two rows of a matrix.
template <int half, int... i>
inline void swap_blocks(U& a, U& b, Indices<i...>) {
  U low = __builtin_shufflevector(a, b, ((i & half) ? lanes + i - half : i)...);
  U high = __builtin_shufflevector(a, b, ((i & half) ? lanes + i : i + half)...);
  a = low;
  b = high;
}

template <int half>
inline void transpose_step(U (&rows)[lanes]) {
  if constexpr (half < lanes) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      if (!(i & half)) {
        swap_blocks<half>(rows[i], rows[i + half], typename FirstN<lanes>::type());
      }
    }
    transpose_step<2 * half>(rows);
  }
}

template <int distance, int... i>
inline F add_turned(F value, Indices<i...>) {
  return value + __builtin_shufflevector(value, value, (i ^ distance)...);
}

template <int distance>
inline F add_across(F value) {
  if constexpr (distance < lanes) {
    return add_across<2 * distance>(add_turned<distance>(value, typename FirstN<lanes>::type()));
  } else {
    return value;
  }
}

// The sum over each vector's lanes, in the lane of its number; others hold anything. One, two or four vectors.
template <int count>
inline F sums_of(const F (&values)[count]) {
  if constexpr (count == 1) {
    return splat(sum(values[0]));
  } else {
    F halves[count / 2];
    for (int i = 0; i < count / 2; ++i) {
      U low = bits_of(values[i]);
      U high = bits_of(values[i + count / 2]);
      swap_blocks<count / 2>(low, high, typename FirstN<lanes>::type());
      halves[i] = float_of_bits(low) + float_of_bits(high);
    }
    if constexpr (count == 4) {
      U low = bits_of(halves[0]);
      U high = bits_of(halves[1]);
      swap_blocks<1>(low, high, typename FirstN<lanes>::type());
      halves[0] = float_of_bits(low) + float_of_bits(high);
    }
    return add_across<count>(halves[0]);
  }
}

// Transposes `lanes` rows of `lanes` words.
inline void transpose(U (&rows)[lanes]) {
  transpose_step<1>(rows);
}

} // namespace mlxlm::cpu::MLXLM_ISA
