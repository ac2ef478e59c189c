// How the numbers of a stored matrix become float vectors. In every format a block of bytes turns into one vector of
// words, and each word into `values` floats: value j of lane l is number l · values + j of the block.
#pragma once

#include "cpu/vec.h"

namespace mlxlm::cpu::MLXLM_ISA {

enum class Scaling { none, affine, powers, e4m3 };

#if defined(__AVX512BF16__)
// bf16 numbers of a table for the codes at bit `shift` of each half of a word. A permute looks at five bits of an index:
// the table of 16 is there twice.
inline U look_up_pairs(F table, U word, int shift) {
  auto numbers = _mm512_cvtepi32_epi16(_mm512_srli_epi32((__m512i)table, 16));
  auto index = _mm512_srli_epi16((__m512i)word, shift);
  return (U)_mm512_permutexvar_epi16(index, _mm512_broadcast_i64x4(numbers));
}
#endif

namespace words {

inline U whole(const uint8_t* from) {
  return read<U>(from);
}

// Lane l: bits 24 l to 24 l + 23, garbage above.
inline U of_three_bytes(const uint8_t* from) {
#if defined(__AVX512F__)
  auto bytes = _mm512_maskz_loadu_epi32(0x0fff, from);
  auto quarters = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12), bytes);
  auto order = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
  return (U)_mm512_shuffle_epi8(quarters, _mm512_broadcast_i32x4(order));
#elif defined(__AVX2__)
  auto bytes = _mm256_maskload_epi32(
      reinterpret_cast<const int*>(from), _mm256_setr_epi32(-1, -1, -1, -1, -1, -1, 0, 0));
  auto halves = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 1, 2, 3, 3, 4, 5, 6));
  auto order = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
  return (U)_mm256_shuffle_epi8(halves, _mm256_broadcastsi128_si256(order));
#else
  U result;
  for (int i = 0; i < lanes; ++i) {
    const uint8_t* word = from + 3 * i;
    result[i] = word[0] | word[1] << 8 | static_cast<uint32_t>(word[2]) << 16;
  }
  return result;
#endif
}

// Lane l: bits 20 l to 20 l + 19, garbage above.
inline U of_twenty_bits(const uint8_t* from) {
#if defined(__AVX512F__)
  // Four lanes are ten bytes: the second and fourth quarter begin within a word.
  auto bytes = _mm512_maskz_loadu_epi32(0x03ff, from);
  auto quarters = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 1, 2, 3, 2, 3, 4, 5, 5, 6, 7, 8, 7, 8, 9, 10), bytes);
  auto even = _mm_setr_epi8(0, 1, 2, 3, 2, 3, 4, 5, 5, 6, 7, 8, 7, 8, 9, 10);
  auto odd = _mm_setr_epi8(2, 3, 4, 5, 4, 5, 6, 7, 7, 8, 9, 10, 9, 10, 11, 12);
  auto order = _mm512_inserti32x4(_mm512_inserti32x4(_mm512_broadcast_i32x4(even), odd, 1), odd, 3);
  auto shifts = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 4, 0, 4));
  return (U)_mm512_srlv_epi32(_mm512_shuffle_epi8(quarters, order), shifts);
#elif defined(__AVX2__)
  auto bytes =
      _mm256_maskload_epi32(reinterpret_cast<const int*>(from), _mm256_setr_epi32(-1, -1, -1, -1, -1, 0, 0, 0));
  auto halves = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 1, 2, 3, 2, 3, 4, 5));
  auto order = _mm256_setr_epi8(
      0, 1, 2, 3, 2, 3, 4, 5, 5, 6, 7, 8, 7, 8, 9, 10, 2, 3, 4, 5, 4, 5, 6, 7, 7, 8, 9, 10, 9, 10, 11, 12);
  auto shifts = _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4);
  return (U)_mm256_srlv_epi32(_mm256_shuffle_epi8(halves, order), shifts);
#else
  U result;
  for (int i = 0; i < lanes; ++i) {
    const uint8_t* word = from + i * 5 / 2;
    result[i] = (word[0] | word[1] << 8 | static_cast<uint32_t>(word[2]) << 16) >> (i % 2 * 4);
  }
  return result;
#endif
}

} // namespace words

template <int bits>
struct Affine {
  static constexpr Scaling scaling = Scaling::affine;
  static constexpr int values = bits == 2 ? 16 : bits <= 4 ? 8 : 4;
  static constexpr int block_bytes = lanes * values * bits / 8;
  static constexpr bool in_words = bits == 2 || bits == 4 || bits == 8; // read as they lie

  static U words(const uint8_t* from) {
    if constexpr (bits == 3 || bits == 6) {
      return words::of_three_bytes(from);
    } else if constexpr (bits == 5) {
      return words::of_twenty_bits(from);
    } else {
      return words::whole(from);
    }
  }

  static F value(U word, int j) {
    U shifted = word >> (j * bits);
#if defined(__AVX512F__)
    if constexpr (bits <= 4) {
      return permute(table(), shifted);
    }
#endif
    return float_of(shifted & ((1 << bits) - 1));
  }

#if defined(__AVX512F__)
  // A permute looks at four bits of its index: the table repeats where a number has fewer.
  static F table() {
    constexpr int last = (1 << bits) - 1;
    F numbers;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      numbers[i] = i & last;
    }
    return numbers;
  }
#endif

  // Whether value j and value j + values / 2 of each word come cheaply as a pair of bf16.
  static constexpr bool has_pairs = has_bf16_dot && (bits == 2 || bits == 4);
#if defined(__AVX512BF16__)
  static U pair(U word, int j) {
    return look_up_pairs(table(), word, j * bits);
  }
#endif
};

template <Scaling of_groups>
struct Fp4 {
  static constexpr Scaling scaling = of_groups;
  static constexpr int values = 8;
  static constexpr int block_bytes = lanes * 4;
  static constexpr bool in_words = true;

  static U words(const uint8_t* from) {
    return words::whole(from);
  }

  static F value(U word, int j) {
#if defined(__AVX512F__)
    return permute(table(), word >> (4 * j));
#elif defined(__AVX2__)
    F table = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    return float_of_bits(bits_of(permute(table, word >> (4 * j))) ^ ((word << (28 - 4 * j)) & 0x80000000));
#else
    // Two bits of exponent, one of mantissa: in a float's place they are 2¹²⁶ too small, subnormals included.
    U shifted = word >> (4 * j);
    return float_of_bits((shifted & 7) << 22 | (shifted & 8) << 28) * splat(0x1p126f);
#endif
  }

#if defined(__AVX512F__)
  static F table() {
    return F{0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0f, -0.5, -1, -1.5, -2, -3, -4, -6};
  }
#endif

  static constexpr bool has_pairs = has_bf16_dot;
#if defined(__AVX512BF16__)
  static U pair(U word, int j) {
    return look_up_pairs(table(), word, 4 * j);
  }
#endif
};

struct Mxfp8 {
  static constexpr Scaling scaling = Scaling::powers;
  static constexpr int values = 4;
  static constexpr int block_bytes = lanes * 4;
  static constexpr bool in_words = true;

  static U words(const uint8_t* from) {
    return words::whole(from);
  }

  static F value(U word, int j) {
    U shifted = word >> (8 * j);
    return float_of_bits((shifted & 0x7f) << 20 | (shifted & 0x80) << 24) * splat(0x1p120f);
  }

  static constexpr bool has_pairs = false;
};

struct Bf16 {
  static constexpr Scaling scaling = Scaling::none;
  static constexpr int values = 2;
  static constexpr int block_bytes = lanes * 4;
  static constexpr bool in_words = true;

  static U words(const uint8_t* from) {
    return words::whole(from);
  }

  static F value(U word, int j) {
    return float_of_bits(j == 0 ? word << 16 : word & 0xffff0000);
  }

  static constexpr bool has_pairs = has_bf16_dot;
  static U pair(U word, int) {
    return word;
  }
};

struct F16 {
  static constexpr Scaling scaling = Scaling::none;
  static constexpr int values = 1;
  static constexpr int block_bytes = lanes * 2;
  static constexpr bool in_words = false;

  static U words(const uint8_t* from) {
    return bits_of(widen_f16(read<H>(from)));
  }

  static F value(U word, int) {
    return float_of_bits(word);
  }

  static constexpr bool has_pairs = false;
};

struct F32 {
  static constexpr Scaling scaling = Scaling::none;
  static constexpr int values = 1;
  static constexpr int block_bytes = lanes * 4;
  static constexpr bool in_words = true;

  static U words(const uint8_t* from) {
    return words::whole(from);
  }

  static F value(U word, int) {
    return float_of_bits(word);
  }

  static constexpr bool has_pairs = false;
};

// Calls `body` with the type that goes with a format; blocks have none here.
template <class Body>
inline void with_format(Format format, Body&& body) {
  switch (format) {
    case Format::f32:
      return body(F32());
    case Format::f16:
      return body(F16());
    case Format::bf16:
      return body(Bf16());
    case Format::affine2:
      return body(Affine<2>());
    case Format::affine3:
      return body(Affine<3>());
    case Format::affine4:
      return body(Affine<4>());
    case Format::affine5:
      return body(Affine<5>());
    case Format::affine6:
      return body(Affine<6>());
    case Format::affine8:
      return body(Affine<8>());
    case Format::mxfp4:
      return body(Fp4<Scaling::powers>());
    case Format::mxfp8:
      return body(Mxfp8());
    case Format::nvfp4:
      return body(Fp4<Scaling::e4m3>());
    case Format::blocks:
      return;
  }
}

// Bytes of `count` numbers; whole bytes, since rows of quantized numbers are whole groups.
template <class Fmt>
constexpr int64_t bytes_of(int64_t count) {
  return count * Fmt::block_bytes / (lanes * Fmt::values);
}

// The words of a block that has only `count` numbers left; zeros behind. Rows of many a small model end in such, so it must
// not go through memory where words are read as they lie.
template <class Fmt>
inline U last_words(const uint8_t* from, int64_t count) {
  int64_t bytes = bytes_of<Fmt>(count);
#if defined(__AVX512F__)
  auto some = _mm512_maskz_loadu_epi8((uint64_t{1} << bytes) - 1, from);
  if constexpr (Fmt::in_words) {
    return (U)some;
  } else {
    alignas(64) uint8_t buffer[64];
    _mm512_store_si512(buffer, some);
    return Fmt::words(buffer);
  }
#elif defined(__AVX2__)
  if constexpr (Fmt::in_words) {
    if (bytes % 4 == 0) {
      auto wanted = _mm256_cmpgt_epi32(_mm256_set1_epi32(bytes / 4), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
      return (U)_mm256_maskload_epi32(reinterpret_cast<const int*>(from), wanted);
    }
  }
#endif
  uint8_t buffer[Fmt::block_bytes] = {};
  std::memcpy(buffer, from, bytes);
  return Fmt::words(buffer);
}

template <class Fmt>
inline U some_words(const uint8_t* from, int64_t count) {
  return count >= lanes * Fmt::values ? Fmt::words(from) : last_words<Fmt>(from, count);
}

// Scales or biases of groups from element i on, as floats: `lanes` of them, or `count` where fewer are left, zeros behind.
template <class Fmt>
inline F group_numbers(Float type, const void* from, int64_t i, int64_t count) {
  if constexpr (Fmt::scaling == Scaling::affine) {
    return count >= lanes ? load_as(type, from, i) : load_some_as(type, from, i, count);
  } else {
    auto bytes = static_cast<const uint8_t*>(from) + i;
    B codes = {};
    if (count >= lanes) {
      codes = read<B>(bytes);
    } else {
      std::memcpy(&codes, bytes, count);
    }
    U words = __builtin_convertvector(codes, U);
    if constexpr (Fmt::scaling == Scaling::powers) {
      // e8m0: 2^(byte - 127); the least of them is no normal float.
      return float_of_bits(words << 23 | ((U)(words == 0) & 0x00400000));
    } else {
      return float_of_bits((words & 0x7f) << 20 | (words & 0x80) << 24) * splat(0x1p120f);
    }
  }
}

inline int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

} // namespace mlxlm::cpu::MLXLM_ISA
