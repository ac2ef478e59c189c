// What ggml's blocks are taken apart with. Whatever the type, sixteen numbers side by side are sixteen small integers (codes) with one
// scale, and in some types a bias: number = scale · code + bias. Blocks lie as ggml-common.h has them.
#pragma once

#include "cpu/block_types.h"
#include "cpu/vec.h"

namespace mlxlm::cpu::MLXLM_ISA {

// How many numbers share a scale at least.
constexpr int group = 16;

// The codes of a group, signed.
typedef uint8_t C __attribute__((vector_size(16)));
typedef int8_t Signed __attribute__((vector_size(16)));
typedef uint16_t Pairs __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(16)));
typedef uint64_t Halves __attribute__((vector_size(16)));

inline C codes_at(const uint8_t* from) {
  return read<C>(from);
}
inline C splat_code(int value) {
  return static_cast<uint8_t>(value) - C{};
}
// Bits `shift` and up of every byte, as many as the mask has.
inline C bits_of(C bytes, int shift, int mask) {
  return (C)((Pairs)bytes >> shift) & splat_code(mask);
}
// The same moved to bit `to`.
inline C bits_of(C bytes, int shift, int mask, int to) {
  return (C)((Pairs)bits_of(bytes, shift, mask) << to);
}
inline C minus(C codes, int value) {
  return codes - splat_code(value);
}
// Bytes of two halves of a group.
inline C joined(uint64_t low, uint64_t high) {
  return (C)Halves{low, high};
}
template <class T>
inline T number_at(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

// table[code] for codes of four bits.
inline C look_up(C table, C codes) {
#if defined(__SSSE3__)
  return (C)_mm_shuffle_epi8((__m128i)table, (__m128i)codes);
#elif defined(__aarch64__)
  return (C)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)codes);
#else
  C result;
  for (int i = 0; i < group; ++i) {
    result[i] = table[codes[i] & 15];
  }
  return result;
#endif
}

inline float half_at(const uint8_t* from) {
  auto bits = number_at<uint16_t>(from);
#if defined(__F16C__)
  return _cvtsh_ss(bits);
#else
  H value = {};
  value[0] = bits;
  return widen_f16(value)[0];
#endif
}

// Codes [part · lanes, (part + 1) · lanes) of a group.
template <int part>
inline F floats_of(C codes) {
#if defined(__AVX512F__)
  return (F)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)codes));
#elif defined(__AVX2__)
  return (F)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128((__m128i)codes, part * 8)));
#elif defined(__aarch64__)
  int8x16_t bytes = (int8x16_t)codes;
  int16x8_t wide = vmovl_s8(part < 2 ? vget_low_s8(bytes) : vget_high_s8(bytes));
  return (F)vcvtq_f32_s32(vmovl_s16(part % 2 == 0 ? vget_low_s16(wide) : vget_high_s16(wide)));
#else
  // A byte in the highest place of a word, and back with its sign.
  __m128i zero = _mm_setzero_si128();
  __m128i bytes = (__m128i)codes;
  __m128i wide = part < 2 ? _mm_unpacklo_epi8(zero, bytes) : _mm_unpackhi_epi8(zero, bytes);
  __m128i words = part % 2 == 0 ? _mm_unpacklo_epi16(zero, wide) : _mm_unpackhi_epi16(zero, wide);
  return (F)_mm_cvtepi32_ps(_mm_srai_epi32(words, 24));
#endif
}

// Sixteen scales: codes times a factor.
inline void store_scales(C codes, float factor, float* to) {
  store(to, floats_of<0>(codes) * splat(factor));
  if constexpr (lanes < group) {
    store(to + lanes, floats_of<1>(codes) * splat(factor));
  }
  if constexpr (lanes == 4) {
    store(to + 8, floats_of<2>(codes) * splat(factor));
    store(to + 12, floats_of<3>(codes) * splat(factor));
  }
}

// Each of eight codes twice: groups of 32 are two of 16.
inline C doubled(uint64_t codes) {
  C single = joined(codes, 0);
  return __builtin_shufflevector(single, single, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
}
inline void splat_scales(float scale, int count, float* to) {
  for (int i = 0; i < count; ++i) {
    to[i] = scale;
  }
}

// Sixteen fields of four bits in eight bytes, in order: the low one of each byte first.
inline C nibbles_in_order(const uint8_t* from) {
  C bytes = joined(number_at<uint64_t>(from), 0);
  C low = bits_of(bytes, 0, 15);
  C high = bits_of(bytes, 4, 15);
  return __builtin_shufflevector(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

} // namespace mlxlm::cpu::MLXLM_ISA
