// ggml's blocks, taken apart. Whatever the type, sixteen numbers side by side are sixteen small integers (codes) with one
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

// --- blocks of 32: a factor, and codes j and j + 16 in a byte

template <int width, bool biased>
struct Simple {
  static constexpr int numbers = 32;
  static constexpr int head = biased ? 4 : 2;
  static constexpr int bytes = head + (width == 5 ? 4 : 0) + 16;
  static constexpr bool has_biases = biased;

  static void scales(const uint8_t* from, float* to, float* biases) {
    splat_scales(half_at(from), 2, to);
    if constexpr (biased) {
      splat_scales(half_at(from + 2), 2, biases);
    }
  }

  static C codes(const uint8_t* from, int g, const BlockTables& tables) {
    C low = bits_of(codes_at(from + bytes - 16), 4 * g, 15);
    if constexpr (width == 5) {
      // A fifth bit each, in two bytes.
      auto high = from + head + 2 * g;
      C fifth = joined(tables.signs[high[0]], tables.signs[high[1]]) & splat_code(16);
      low |= fifth;
    }
    return biased ? low : minus(low, 1 << (width - 1));
  }
};

struct Q8_0 {
  static constexpr int numbers = 32;
  static constexpr int bytes = 34;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    splat_scales(half_at(from), 2, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    return codes_at(from + 2 + group * g);
  }
};

// --- blocks of 256

// 64 bytes with four codes of two bits each: 32 of the lowest, then 32 of the next, for each half.
inline C quarter(const uint8_t* from, int g) {
  return bits_of(codes_at(from + 32 * (g / 8) + group * (g % 2)), g % 8 / 2 * 2, 3);
}

// 128 bytes with two codes of four bits each: 32 low ones, then their 32 high ones.
inline C nibble(const uint8_t* from, int g) {
  return bits_of(codes_at(from + 32 * (g / 4) + group * (g % 2)), g % 4 / 2 * 4, 15);
}

struct Q2K {
  static constexpr int numbers = 256;
  static constexpr int bytes = 84;
  static constexpr bool has_biases = true;

  static void scales(const uint8_t* from, float* to, float* biases) {
    C own = codes_at(from);
    store_scales(bits_of(own, 0, 15), half_at(from + 80), to);
    store_scales(bits_of(own, 4, 15), -half_at(from + 82), biases);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    return quarter(from + 16, g);
  }
};

struct Q3K {
  static constexpr int numbers = 256;
  static constexpr int bytes = 110;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    // Four bits of each in eight bytes, low ones first; two more in four bytes.
    auto first = number_at<uint64_t>(from + 96);
    uint64_t mask = 0x0f0f0f0f0f0f0f0f;
    C low = joined(first & mask, first >> 4 & mask);
    uint64_t last = number_at<uint32_t>(from + 104);
    uint64_t two = 0x03030303;
    C high = joined((last & two) | (last >> 2 & two) << 32, (last >> 4 & two) | (last >> 6 & two) << 32);
    store_scales(minus(low | (C)((Pairs)high << 4), 32), half_at(from + 108), to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    return minus(quarter(from + 32, g) | bits_of(codes_at(from + group * (g % 2)), g / 2, 1, 2), 4);
  }
};

// Factors and minima of eight groups of 32, six bits each, in twelve bytes.
inline void scales_and_minima(const uint8_t* from, float* to, float* biases) {
  uint64_t a = number_at<uint32_t>(from + 4);
  uint64_t b = number_at<uint32_t>(from + 8);
  uint64_t c = number_at<uint32_t>(from + 12);
  uint64_t six = 0x3f3f3f3f;
  uint64_t four = 0x0f0f0f0f;
  uint64_t two = 0x30303030;
  uint64_t factors = (a & six) | ((c & four) | (a >> 2 & two)) << 32;
  uint64_t minima = (b & six) | ((c >> 4 & four) | (b >> 2 & two)) << 32;
  store_scales(doubled(factors), half_at(from), to);
  store_scales(doubled(minima), -half_at(from + 2), biases);
}

struct Q4K {
  static constexpr int numbers = 256;
  static constexpr int bytes = 144;
  static constexpr bool has_biases = true;

  static void scales(const uint8_t* from, float* to, float* biases) {
    scales_and_minima(from, to, biases);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    return nibble(from + 16, g);
  }
};

struct Q5K {
  static constexpr int numbers = 256;
  static constexpr int bytes = 176;
  static constexpr bool has_biases = true;

  static void scales(const uint8_t* from, float* to, float* biases) {
    scales_and_minima(from, to, biases);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    return nibble(from + 48, g) | bits_of(codes_at(from + 16 + group * (g % 2)), g / 2, 1, 4);
  }
};

struct Q6K {
  static constexpr int numbers = 256;
  static constexpr int bytes = 210;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    store_scales(codes_at(from + 192), half_at(from + 208), to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    int half = g / 8;
    int quarter = g % 8 / 2;
    int side = group * (g % 2);
    C low = bits_of(codes_at(from + 64 * half + 32 * (quarter % 2) + side), quarter / 2 * 4, 15);
    return minus(low | bits_of(codes_at(from + 128 + 32 * half + side), 2 * quarter, 3, 4), 32);
  }
};

struct Q8K {
  static constexpr int numbers = 256;
  static constexpr int bytes = 292;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    splat_scales(number_at<float>(from), 16, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    return codes_at(from + 4 + group * g);
  }
};

// --- three values, and two

struct TQ1 {
  static constexpr int numbers = 256;
  static constexpr int bytes = 54;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    splat_scales(half_at(from + 52), 16, to);
  }
  // Digits of 3, the first in the highest place of a byte's fraction: a byte times a power of 3 begins with the digit wanted.
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    constexpr uint8_t powers[] = {1, 3, 9, 27, 81};
    C scaled;
    if (g < 15) {
      scaled = (g < 10 ? codes_at(from + group * (g % 2)) : codes_at(from + 32)) * splat_code(powers[g < 10 ? g / 2 : g - 10]);
    } else {
      C last = (C)(number_at<uint32_t>(from + 48) - Words{});
      scaled = last * C{1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27};
    }
    // The digit is 3 scaled / 256; a comparison that holds is −1.
    return (C)(Signed)(splat_code(255)) - (C)(scaled >= splat_code(86)) - (C)(scaled >= splat_code(171));
  }
};

struct TQ2 {
  static constexpr int numbers = 256;
  static constexpr int bytes = 66;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    splat_scales(half_at(from + 64), 16, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    return minus(quarter(from, g), 1);
  }
};

// A bit each, in order: 1 for the factor, 0 for its opposite.
struct Q1_0 {
  static constexpr int numbers = 128;
  static constexpr int bytes = 18;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    splat_scales(half_at(from), 8, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables& tables) {
    auto bits = from + 2 + 2 * g;
    return minus(joined(tables.signs[bits[0]], tables.signs[bits[1]]) & splat_code(2), 1);
  }
};

// Two bits each, in order.
struct Q2_0 {
  static constexpr int numbers = 64;
  static constexpr int bytes = 18;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    splat_scales(half_at(from), 4, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    C bytes = (C)(number_at<uint32_t>(from + 2 + 4 * g) - Words{});
    C spread = __builtin_shufflevector(bytes, bytes, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    C places = {3, 12, 48, 192, 3, 12, 48, 192, 3, 12, 48, 192, 3, 12, 48, 192};
    // The field in its place; then it comes down by as much as it lies high, half of that at a time.
    C kept = spread & places;
    C upper = {0, 0, 255, 255, 0, 0, 255, 255, 0, 0, 255, 255, 0, 0, 255, 255};
    C odd = {0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255};
    kept = (kept & ~upper) | (bits_of(kept, 4, 15) & upper);
    kept = (kept & ~odd) | (bits_of(kept, 2, 3) & odd);
    return minus(kept, 1);
  }
};

// --- sixteen values by a table

inline C curve() {
  return (C)Signed{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
}
// Twice those of e2m1.
inline C fours() {
  return (C)Signed{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
}

struct IQ4NL {
  static constexpr int numbers = 32;
  static constexpr int bytes = 18;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    splat_scales(half_at(from), 2, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    return look_up(curve(), bits_of(codes_at(from + 2), 4 * g, 15));
  }
};

struct IQ4XS {
  static constexpr int numbers = 256;
  static constexpr int bytes = 136;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    auto high = number_at<uint16_t>(from + 2);
    uint64_t factors = 0;
    for (int i = 0; i < 8; ++i) {
      uint64_t factor = (from[4 + i / 2] >> 4 * (i % 2) & 15) | (high >> 2 * i & 3) << 4;
      factors |= factor << 8 * i;
    }
    store_scales(minus(doubled(factors), 32), half_at(from), to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    return look_up(curve(), bits_of(codes_at(from + 8 + group * (g / 2)), 4 * (g % 2), 15));
  }
};

struct Mxfp4Block {
  static constexpr int numbers = 32;
  static constexpr int bytes = 17;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    // Half of 2^(byte − 127); the two least are no normal floats.
    uint32_t byte = from[0];
    splat_scales(float_of_bits(byte < 2 ? 0x00200000u << byte : (byte - 1) << 23), 2, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    return look_up(fours(), bits_of(codes_at(from + 1), 4 * g, 15));
  }
};

struct Nvfp4Block {
  static constexpr int numbers = 64;
  static constexpr int bytes = 36;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    for (int i = 0; i < 4; ++i) {
      // e4m3 in a float's place is 2¹²⁰ too small, subnormals included; half of that. 0x7f is none.
      uint32_t byte = from[i] == 0x7f ? 0 : from[i] & 0x7f;
      to[i] = float_of_bits(byte << 20) * 0x1p119f;
    }
  }
  static C codes(const uint8_t* from, int g, const BlockTables&) {
    auto bytes = number_at<uint64_t>(from + 4 + 8 * g);
    uint64_t mask = 0x0f0f0f0f0f0f0f0f;
    return look_up(fours(), joined(bytes & mask, bytes >> 4 & mask));
  }
};

// --- vectors of a grid

inline C with_signs(C numbers, C minus) {
  return (numbers ^ minus) - minus;
}
inline uint64_t eight(const BlockTables& tables, int vector) {
  return number_at<uint64_t>(static_cast<const uint8_t*>(tables.grid) + 8 * vector);
}
inline uint64_t two_fours(const BlockTables& tables, int first, int second) {
  auto grid = static_cast<const uint8_t*>(tables.grid);
  return number_at<uint32_t>(grid + 4 * first) | static_cast<uint64_t>(number_at<uint32_t>(grid + 4 * second)) << 32;
}

// d · (code + ½) · share, of sixteen codes
inline void store_shares(C codes, float factor, float* to) {
  // 2 code + 1 is a whole number.
  store_scales((C)((Pairs)codes << 1) + splat_code(1), factor * 0.5f, to);
}

struct IQ2XXS {
  static constexpr int numbers = 256;
  static constexpr int bytes = 66;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    uint64_t factors = 0;
    for (int i = 0; i < 8; ++i) {
      factors |= static_cast<uint64_t>(from[2 + 8 * i + 7] >> 4) << 8 * i;
    }
    store_shares(doubled(factors), half_at(from) * 0.25f, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables& tables) {
    auto own = from + 2 + 8 * (g / 2);
    auto vectors = own + 2 * (g % 2);
    uint32_t signs = number_at<uint32_t>(own + 4) >> 14 * (g % 2);
    return with_signs(
        joined(eight(tables, vectors[0]), eight(tables, vectors[1])),
        joined(tables.even_signs[signs & 127], tables.even_signs[signs >> 7 & 127]));
  }
};

struct IQ2XS {
  static constexpr int numbers = 256;
  static constexpr int bytes = 74;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    store_shares(nibbles_in_order(from + 66), half_at(from) * 0.25f, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables& tables) {
    auto own = number_at<uint32_t>(from + 2 + 4 * g);
    return with_signs(
        joined(eight(tables, own & 511), eight(tables, own >> 16 & 511)),
        joined(tables.even_signs[own >> 9 & 127], tables.even_signs[own >> 25]));
  }
};

struct IQ2S {
  static constexpr int numbers = 256;
  static constexpr int bytes = 82;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    store_shares(nibbles_in_order(from + 74), half_at(from) * 0.25f, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables& tables) {
    auto low = from + 2 + 2 * g;
    auto signs = from + 34 + 2 * g;
    int high = from[66 + g / 2] >> 4 * (g % 2);
    return with_signs(
        joined(eight(tables, low[0] | (high & 3) << 8), eight(tables, low[1] | (high >> 2 & 3) << 8)),
        joined(tables.signs[signs[0]], tables.signs[signs[1]]));
  }
};

struct IQ3XXS {
  static constexpr int numbers = 256;
  static constexpr int bytes = 98;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    uint64_t factors = 0;
    for (int i = 0; i < 8; ++i) {
      factors |= static_cast<uint64_t>(from[66 + 4 * i + 3] >> 4) << 8 * i;
    }
    store_shares(doubled(factors), half_at(from) * 0.5f, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables& tables) {
    auto vectors = from + 2 + 4 * g;
    uint32_t signs = number_at<uint32_t>(from + 66 + 4 * (g / 2)) >> 14 * (g % 2);
    return with_signs(
        joined(two_fours(tables, vectors[0], vectors[1]), two_fours(tables, vectors[2], vectors[3])),
        joined(tables.even_signs[signs & 127], tables.even_signs[signs >> 7 & 127]));
  }
};

struct IQ3S {
  static constexpr int numbers = 256;
  static constexpr int bytes = 110;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    uint64_t factors = 0;
    for (int i = 0; i < 8; ++i) {
      factors |= static_cast<uint64_t>(2 * (from[106 + i / 2] >> 4 * (i % 2) & 15) + 1) << 8 * i;
    }
    store_scales(doubled(factors), half_at(from), to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables& tables) {
    auto low = from + 2 + 4 * g;
    auto signs = from + 74 + 2 * g;
    int high = from[66 + g / 2] >> 4 * (g % 2);
    auto vector = [&](int i) { return low[i] | (high >> i & 1) << 8; };
    return with_signs(
        joined(two_fours(tables, vector(0), vector(1)), two_fours(tables, vector(2), vector(3))),
        joined(tables.signs[signs[0]], tables.signs[signs[1]]));
  }
};

// Vectors of −1, 0 and 1, each number moved by an eighth: in eighths they are whole.
inline C in_eighths(C vectors, C moves) {
  return (C)((Pairs)(vectors & splat_code(31)) << 3) + moves;
}

struct IQ1S {
  static constexpr int numbers = 256;
  static constexpr int bytes = 50;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    uint64_t factors = 0;
    for (int i = 0; i < 8; ++i) {
      factors |= static_cast<uint64_t>(2 * (from[34 + 2 * i + 1] >> 4 & 7) + 1) << 8 * i;
    }
    store_scales(doubled(factors), half_at(from) * 0.125f, to);
  }
  static C codes(const uint8_t* from, int g, const BlockTables& tables) {
    auto own = number_at<uint16_t>(from + 34 + 2 * (g / 2));
    auto low = from + 2 + 2 * g;
    int high = own >> 6 * (g % 2);
    C vectors = joined(eight(tables, low[0] | (high & 7) << 8), eight(tables, low[1] | (high >> 3 & 7) << 8));
    return in_eighths(vectors, splat_code(own & 0x8000 ? -1 : 1));
  }
};

struct IQ1M {
  static constexpr int numbers = 256;
  static constexpr int bytes = 56;
  static constexpr bool has_biases = false;

  static void scales(const uint8_t* from, float* to, float*) {
    auto all = number_at<uint64_t>(from + 48);
    // The upper four bits of each word are the block's own factor.
    uint8_t own[2] = {
        static_cast<uint8_t>((all >> 12 & 15) | (all >> 28 & 15) << 4),
        static_cast<uint8_t>((all >> 44 & 15) | (all >> 60 & 15) << 4)};
    float factor = half_at(own) * 0.125f;
    for (int i = 0; i < 16; ++i) {
      to[i] = factor * static_cast<float>(2 * static_cast<int>(all >> (16 * (i / 4) + 3 * (i % 4)) & 7) + 1);
    }
  }
  static C codes(const uint8_t* from, int g, const BlockTables& tables) {
    auto low = from + 2 * g;
    int high = from[32 + g];
    C vectors = joined(eight(tables, low[0] | (high & 7) << 8), eight(tables, low[1] | (high >> 4 & 7) << 8));
    uint64_t up = 0x0101010101010101;
    uint64_t down = ~uint64_t{0};
    return in_eighths(vectors, joined(high & 8 ? down : up, high & 128 ? down : up));
  }
};

// Calls `body` with the type's struct.
template <class Body>
inline void with_blocks(BlockType type, Body&& body) {
  switch (type) {
    case BlockType::q4_0:
      return body(Simple<4, false>());
    case BlockType::q4_1:
      return body(Simple<4, true>());
    case BlockType::q5_0:
      return body(Simple<5, false>());
    case BlockType::q5_1:
      return body(Simple<5, true>());
    case BlockType::q8_0:
      return body(Q8_0());
    case BlockType::q2_k:
      return body(Q2K());
    case BlockType::q3_k:
      return body(Q3K());
    case BlockType::q4_k:
      return body(Q4K());
    case BlockType::q5_k:
      return body(Q5K());
    case BlockType::q6_k:
      return body(Q6K());
    case BlockType::q8_k:
      return body(Q8K());
    case BlockType::iq2_xxs:
      return body(IQ2XXS());
    case BlockType::iq2_xs:
      return body(IQ2XS());
    case BlockType::iq3_xxs:
      return body(IQ3XXS());
    case BlockType::iq1_s:
      return body(IQ1S());
    case BlockType::iq4_nl:
      return body(IQ4NL());
    case BlockType::iq3_s:
      return body(IQ3S());
    case BlockType::iq2_s:
      return body(IQ2S());
    case BlockType::iq4_xs:
      return body(IQ4XS());
    case BlockType::iq1_m:
      return body(IQ1M());
    case BlockType::tq1_0:
      return body(TQ1());
    case BlockType::tq2_0:
      return body(TQ2());
    case BlockType::mxfp4:
      return body(Mxfp4Block());
    case BlockType::nvfp4:
      return body(Nvfp4Block());
    case BlockType::q1_0:
      return body(Q1_0());
    case BlockType::q2_0:
      return body(Q2_0());
  }
}

} // namespace mlxlm::cpu::MLXLM_ISA
