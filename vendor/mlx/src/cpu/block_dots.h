// One row meets blocks of 256 in integers: x is rounded to 16 bits by groups of 32, which the machine multiplies by codes of
// up to 6 bits as two bytes each. Twice the work of x in 8 bits. Each number of x is off by 1/65024 of its group's largest
// at most, which is as exact as float16 where that is up to 32 times the number. What is larger is multiplied apart.
#pragma once

#include "cpu/plain_blocks.h"

namespace mlxlm::cpu::MLXLM_ISA {

// Whether bytes are multiplied in integers here at all.
#if defined(__AVX2__)
constexpr bool has_byte_products = true;
#else
constexpr bool has_byte_products = false;
#endif

// A vector of codes, unsigned, and what has as many bits.
constexpr int wide = lanes * 4;
typedef uint8_t W __attribute__((vector_size(wide)));
typedef uint16_t WidePairs __attribute__((vector_size(wide)));

// Numbers of x that share a factor, which lie side by side in blocks too.
constexpr int chunk = 32;
constexpr int wide_chunks = wide / chunk;

// So many numbers are a block here.
constexpr int wide_block = 256;
constexpr int wide_vectors = wide_block / wide;

constexpr int wide_groups = wide_block / group;

// A block's worth of x, in the order of a type's codes: x = factor · (256 · high + low).
struct alignas(64) WideX {
  int8_t high[wide_block];
  int8_t low[wide_block];
  float factors[wide_groups]; // each of a chunk twice
  float sums[wide_groups];
};

// How a type's codes come, two wide vectors at a time, 2 p and 2 p + 1. `chunk_of(v, j)` is chunk j of vector v; codes are
// `zero` more than they stand for. `in_pairs`: each chunk has a scale and a minimum, which lie side by side where groups
// have their scales.
template <class Type>
struct WideCodes {
  static constexpr bool exist = false;
};

// How many blocks of a row may have their outliers taken out: each is multiplied twice. What is more stays with the others.
constexpr int64_t most_outlying(int64_t blocks) {
  return blocks / 8 + 1;
}

// A row of x as it is packed: its blocks, and behind them others that have only outliers, of the blocks at `places`. −1
// ends those.
struct WideRow {
  WideX* blocks;
  WideX* outliers;
  int64_t* places;
};

inline WideRow wide_row(void* packed, int64_t blocks) {
  auto x = static_cast<WideX*>(packed);
  auto outliers = x + blocks;
  return {x, outliers, reinterpret_cast<int64_t*>(outliers + most_outlying(blocks))};
}
constexpr int64_t wide_row_bytes(int64_t blocks) {
  int64_t most = most_outlying(blocks);
  return (blocks + most) * static_cast<int64_t>(sizeof(WideX)) + (most + 1) * static_cast<int64_t>(sizeof(int64_t));
}

// A row of whole blocks in a type's order.
template <class Type>
void pack_wide(const float* x, int64_t blocks, void* packed);

// Its products with rows of blocks.
template <class Type>
void dots_wide(const uint8_t* from, int64_t row_bytes, int64_t rows, int64_t blocks, const void* packed, float* to);

#if defined(__AVX2__)

#if defined(__AVX512F__)
#define MLXLM_VECTOR "+v"
#else
#define MLXLM_VECTOR "+x"
#endif

// A vector that is read once, however often it is used: reading it again is no free part of an instruction where it crosses
// a cache line, or where reads are what a loop waits for.
template <class T>
inline W wide_at(const T* from) {
  W bytes = read<W>(from);
  asm("" : MLXLM_VECTOR(bytes));
  return bytes;
}
// 32 bytes for each chunk.
inline W for_each_chunk(const uint8_t* from) {
#if defined(__AVX512F__)
  return (W)_mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#else
  return wide_at(from);
#endif
}
inline W splat_wide(int value) {
  return static_cast<uint8_t>(value) - W{};
}
inline W wide_bits(W bytes, int shift, int mask) {
  return (W)((WidePairs)bytes >> shift) & splat_wide(mask);
}
// Bits `first` and up of the first chunk's bytes, `second` of the second's, as many as the mask at `to` has, moved there.
inline W wide_bits(W bytes, int first, int second, int mask, int to) {
#if defined(__AVX512F__)
  auto by = [&](int shift) { return static_cast<short>(shift > to ? shift - to : to - shift); };
  auto shifts = _mm512_inserti64x4(_mm512_set1_epi16(by(first)), _mm256_set1_epi16(by(second)), 1);
  if (first >= to && second >= to) {
    return (W)_mm512_srlv_epi16((__m512i)bytes, shifts) & splat_wide(mask);
  }
  if (first <= to && second <= to) {
    return (W)_mm512_sllv_epi16((__m512i)bytes, shifts) & splat_wide(mask);
  }
  auto down = first > to ? _mm512_inserti64x4(shifts, _mm256_setzero_si256(), 1)
                         : _mm512_inserti64x4(shifts, _mm256_setzero_si256(), 0);
  auto up = first > to ? _mm512_inserti64x4(shifts, _mm256_setzero_si256(), 0)
                       : _mm512_inserti64x4(shifts, _mm256_setzero_si256(), 1);
  return (W)_mm512_sllv_epi16(_mm512_srlv_epi16((__m512i)bytes, down), up) & splat_wide(mask);
#else
  return (first >= to ? (W)((WidePairs)bytes >> (first - to)) : (W)((WidePairs)bytes << (to - first))) & splat_wide(mask);
#endif
}

// Of each four codes Σ code · (256 · high + low), exactly: codes below 128.
inline I multiply_bytes(W codes, W high, W low) {
#if defined(__AVX512VNNI__)
  auto sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), (__m512i)codes, (__m512i)high);
  return (I)_mm512_dpbusd_epi32(_mm512_slli_epi32(sums, 8), (__m512i)codes, (__m512i)low);
#elif defined(__AVX512F__)
  auto highs = _mm512_maddubs_epi16((__m512i)codes, (__m512i)high);
  auto lows = _mm512_maddubs_epi16((__m512i)codes, (__m512i)low);
  return (I)_mm512_madd_epi16(highs, _mm512_set1_epi16(256)) + (I)_mm512_madd_epi16(lows, _mm512_set1_epi16(1));
#else
  auto highs = _mm256_maddubs_epi16((__m256i)codes, (__m256i)high);
  auto lows = _mm256_maddubs_epi16((__m256i)codes, (__m256i)low);
  return (I)_mm256_madd_epi16(highs, _mm256_set1_epi16(256)) + (I)_mm256_madd_epi16(lows, _mm256_set1_epi16(1));
#endif
}

template <>
struct WideCodes<Q4K> {
  static constexpr bool exist = true;
  static constexpr bool in_pairs = true;
  static constexpr int zero = 0;
  static constexpr int chunk_of(int v, int j) {
    return v / 2 * 2 * wide_chunks + v % 2 + 2 * j;
  }
  template <int p>
  static void codes(const uint8_t* from, W (&to)[2]) {
    W bytes = wide_at(from + 16 + wide * p);
    to[0] = wide_bits(bytes, 0, 15);
    to[1] = wide_bits(bytes, 4, 15);
  }
};

template <>
struct WideCodes<Q5K> {
  static constexpr bool exist = true;
  static constexpr bool in_pairs = true;
  static constexpr int zero = 0;
  static constexpr int chunk_of(int v, int j) {
    return WideCodes<Q4K>::chunk_of(v, j);
  }
  template <int p>
  static void codes(const uint8_t* from, W (&to)[2]) {
    W bytes = wide_at(from + 48 + wide * p);
    W high = for_each_chunk(from + 16);
    constexpr int last = wide_chunks - 1;
    to[0] = wide_bits(bytes, 0, 15) | wide_bits(high, chunk_of(2 * p, 0), chunk_of(2 * p, last), 16, 4);
    to[1] = wide_bits(bytes, 4, 15) | wide_bits(high, chunk_of(2 * p + 1, 0), chunk_of(2 * p + 1, last), 16, 4);
  }
};

template <>
struct WideCodes<Q6K> {
  static constexpr bool exist = true;
  static constexpr bool in_pairs = false;
  static constexpr int zero = 32;
  static constexpr int chunk_of(int v, int j) {
    int place = v / 2 * wide_chunks;
    return place / 2 * 4 + place % 2 + j + v % 2 * 2;
  }
  template <int p>
  static void codes(const uint8_t* from, W (&to)[2]) {
    W bytes = wide_at(from + wide * p);
    W high = for_each_chunk(from + 128 + 32 * (wide_chunks * p / 2));
    constexpr int first = 2 * (chunk_of(2 * p, 0) % 4);
    constexpr int second = 2 * (chunk_of(2 * p, wide_chunks - 1) % 4);
    to[0] = wide_bits(bytes, 0, 15) | wide_bits(high, first, second, 48, 4);
    to[1] = wide_bits(bytes, 4, 15) | wide_bits(high, first + 4, second + 4, 48, 4);
  }
};

template <>
struct WideCodes<Q2K> {
  static constexpr bool exist = true;
  static constexpr bool in_pairs = false;
  static constexpr int zero = 0;
  static constexpr int chunk_of(int v, int j) {
    return v + 4 * j;
  }
  template <int p>
  static void codes(const uint8_t* from, W (&to)[2]) {
    W bytes = wide_at(from + 16 + 32 * (p / 2));
    to[0] = wide_bits(bytes, 4 * (p % 2), 3);
    to[1] = wide_bits(bytes, 4 * (p % 2) + 2, 3);
  }
};

template <>
struct WideCodes<Q3K> {
  static constexpr bool exist = true;
  static constexpr bool in_pairs = false;
  static constexpr int zero = 4;
  static constexpr int chunk_of(int v, int j) {
    return WideCodes<Q2K>::chunk_of(v, j);
  }
  template <int p>
  static void codes(const uint8_t* from, W (&to)[2]) {
    W bytes = wide_at(from + 32 + 32 * (p / 2));
    W high = for_each_chunk(from);
    constexpr int last = wide_chunks - 1;
    to[0] = wide_bits(bytes, 4 * (p % 2), 3) | wide_bits(high, chunk_of(2 * p, 0), chunk_of(2 * p, last), 4, 2);
    to[1] = wide_bits(bytes, 4 * (p % 2) + 2, 3) |
        wide_bits(high, chunk_of(2 * p + 1, 0), chunk_of(2 * p + 1, last), 4, 2);
  }
};

template <class Type>
void pack_block(const float* x, WideX* to) {
  constexpr int vectors = group / lanes;
  constexpr float most = 32512; // both bytes keep their sign
  constexpr float shift = 0x1.8p23f; // a float of this size has whole numbers only
  typedef int8_t Bytes __attribute__((vector_size(lanes)));
  for (int v = 0; v < wide_vectors; ++v) {
    for (int j = 0; j < wide_chunks; ++j) {
      int at = WideCodes<Type>::chunk_of(v, j);
      const float* from = x + at * chunk;
      U sizes = {};
#pragma GCC unroll 4
      for (int i = 0; i < chunk; i += lanes) {
        U size = bits_of(load(from + i)) & 0x7fffffff;
        sizes = size > sizes ? size : sizes;
      }
      // What is no number counts as infinite.
      U infinite = bits_of(splat(__builtin_inff()));
      float largest = max(float_of_bits(sizes > infinite ? infinite : sizes));
      bool none = !(largest < 0x1p127f);
      float factor = none ? largest - largest : largest < 0x1p-100f ? 0 : largest / most;
      F inverse = splat(none || factor == 0 ? 0 : most / largest);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        I total = {};
#pragma GCC unroll 2
        for (int i = 0; i < vectors; ++i) {
          int place = half * group + i * lanes;
          F scaled = none ? F{} : load(from + place) * inverse;
          I whole = (I)(bits_of(scaled + splat(shift)) - bits_of(splat(shift)));
          I high = (whole + 128) >> 8;
          Bytes highs = __builtin_convertvector(high, Bytes);
          Bytes lows = __builtin_convertvector(whole - (high << 8), Bytes);
          std::memcpy(to->high + v * wide + j * chunk + place, &highs, lanes);
          std::memcpy(to->low + v * wide + j * chunk + place, &lows, lanes);
          total += whole;
        }
        to->factors[2 * at + half] = factor;
        to->sums[2 * at + half] = sum(__builtin_convertvector(total, F)) * factor;
      }
      if constexpr (WideCodes<Type>::in_pairs) {
        to->sums[2 * at + 1] = -(to->sums[2 * at] + to->sums[2 * at + 1]);
        to->sums[2 * at] = 0;
      }
    }
  }
}

// So much larger than all others of its group a number is taken out.
constexpr float dwarfing = 32;

// Parts a block of x into outliers, of which a group has one at most, and the others. False, and nothing done, where it
// has none. What is infinite or no number is none.
inline bool take_outliers(const float* x, float* others, float* outliers) {
  bool any = false;
  for (int first = 0; first < wide_block; first += chunk) {
    F sizes = {};
#pragma GCC unroll 4
    for (int i = 0; i < chunk; i += lanes) {
      F size = float_of_bits(bits_of(load(x + first + i)) & 0x7fffffff);
      sizes = size > sizes ? size : sizes;
    }
    float largest = max(sizes);
    // Of `lanes` maxima all others are small then.
    if (!(sum(sizes) < 1.5f * largest)) {
      continue;
    }
    int place = -1;
    float next = 0;
    for (int i = first; i < first + chunk; ++i) {
      float size = __builtin_fabsf(x[i]);
      if (place < 0 && size == largest) {
        place = i;
      } else if (!(size <= next)) {
        next = size;
      }
    }
    if (place < 0 || !(next > 0 && next * dwarfing < largest)) {
      continue;
    }
    if (!any) {
      std::memcpy(others, x, wide_block * sizeof(float));
      std::memset(outliers, 0, wide_block * sizeof(float));
      any = true;
    }
    others[place] = 0;
    outliers[place] = x[place];
  }
  return any;
}

template <class Type>
void pack_wide(const float* x, int64_t blocks, void* packed) {
  auto row = wide_row(packed, blocks);
  int64_t found = 0;
  alignas(64) float others[wide_block];
  alignas(64) float outliers[wide_block];
  for (int64_t b = 0; b < blocks; ++b, x += wide_block) {
    bool parted = found < most_outlying(blocks) && take_outliers(x, others, outliers);
    pack_block<Type>(parted ? others : x, row.blocks + b);
    if (parted) {
      pack_block<Type>(outliers, row.outliers + found);
      row.places[found++] = b;
    }
  }
  row.places[found] = -1;
}

// A block's factor for scales and the one for minima, in turn.
inline F halves_in_turn(const uint8_t* from) {
  auto both = number_at<int32_t>(from);
#if defined(__AVX512F__)
  return (F)_mm512_cvtph_ps(_mm256_set1_epi32(both));
#else
  return (F)_mm256_cvtph_ps(_mm_set1_epi32(both));
#endif
}

// The factors of a vector's lanes, of those of a block's groups.
template <class Codes, int v>
inline F lane_factors(const F (&factors)[wide_groups / lanes]) {
  U places;
#pragma GCC unroll 16
  for (int l = 0; l < lanes; ++l) {
    places[l] = (2 * Codes::chunk_of(v, l / 8) + (Codes::in_pairs ? 0 : l % 8 / 4)) % lanes;
  }
  return permute(factors[2 * Codes::chunk_of(v, 0) / lanes], places);
}

template <class Codes, int v, int width>
inline void add_vector(
    const W (&codes)[width], const WideX& x, const F (&factors)[width][wide_groups / lanes], F (&totals)[width][4]) {
  W high = wide_at(x.high + v * wide);
  W low = wide_at(x.low + v * wide);
#pragma GCC unroll 4
  for (int i = 0; i < width; ++i) {
    I sums = multiply_bytes(codes[i], high, low);
    totals[i][v % 4] += __builtin_convertvector(sums, F) * lane_factors<Codes, v>(factors[i]);
  }
}

template <class Codes, int p, int width>
inline void add_vectors(
    const uint8_t* from, int64_t row_bytes, const WideX& x, const F (&factors)[width][wide_groups / lanes],
    F (&totals)[width][4]) {
  if constexpr (2 * p < wide_vectors) {
    W codes[2][width];
#pragma GCC unroll 4
    for (int i = 0; i < width; ++i) {
      W both[2];
      Codes::template codes<p>(from + i * row_bytes, both);
      codes[0][i] = both[0];
      codes[1][i] = both[1];
    }
    add_vector<Codes, 2 * p>(codes[0], x, factors, totals);
    add_vector<Codes, 2 * p + 1>(codes[1], x, factors, totals);
    add_vectors<Codes, p + 1>(from, row_bytes, x, factors, totals);
  }
}

// A block's factors times x's, and its share of the sums for what codes have too much or too little.
template <class Type>
inline void take_factors(const uint8_t* from, const WideX& x, F (&factors)[wide_groups / lanes], F (&totals)[4]) {
  if constexpr (WideCodes<Type>::in_pairs) {
    C codes = scales_beside_minima(from);
    factors[0] = floats_of<0>(codes);
    if constexpr (lanes < group) {
      factors[1] = floats_of<1>(codes);
    }
    F own = halves_in_turn(from);
#pragma GCC unroll 2
    for (int i = 0; i < wide_groups / lanes; ++i) {
      F scaled = factors[i] * own;
      totals[i] += scaled * load(x.sums + i * lanes);
      factors[i] = scaled * load(x.factors + i * lanes);
    }
    return;
  }
  alignas(64) float scales[wide_groups];
  alignas(64) float biases[wide_groups];
  Type::scales(from, scales, biases);
#pragma GCC unroll 2
  for (int i = 0; i < wide_groups / lanes; ++i) {
    F scale = load(scales + i * lanes);
    F sums = load(x.sums + i * lanes);
    factors[i] = scale * load(x.factors + i * lanes);
    totals[i] += (Type::has_biases ? load(biases + i * lanes) : scale * splat(-WideCodes<Type>::zero)) * sums;
  }
}

// `width` rows of blocks side by side: x is read once for them.
template <class Type, int width>
void dot_wide(const uint8_t* from, int64_t row_bytes, int64_t blocks, const WideX* x, float* to) {
  F totals[width][4] = {};
  for (int64_t b = 0; b < blocks; ++b, from += Type::bytes, ++x) {
    F factors[width][wide_groups / lanes];
#pragma GCC unroll 4
    for (int i = 0; i < width; ++i) {
      auto block = from + i * row_bytes;
#pragma GCC unroll 8
      for (int at = 0; at < Type::bytes; at += 64) {
        __builtin_prefetch(block + fetched_ahead + at);
      }
      take_factors<Type>(block, *x, factors[i], totals[i]);
    }
    add_vectors<WideCodes<Type>, 0>(from, row_bytes, *x, factors, totals);
  }
#pragma GCC unroll 4
  for (int i = 0; i < width; ++i) {
    to[i] = sum((totals[i][0] + totals[i][1]) + (totals[i][2] + totals[i][3]));
  }
}

// The same with outliers.
template <class Type, int width>
void dot_row(const uint8_t* from, int64_t row_bytes, int64_t blocks, const WideRow& x, float* to) {
  dot_wide<Type, width>(from, row_bytes, blocks, x.blocks, to);
  for (int64_t i = 0; x.places[i] >= 0; ++i) {
    float more[width];
    dot_wide<Type, width>(from + x.places[i] * Type::bytes, row_bytes, 1, x.outliers + i, more);
    for (int j = 0; j < width; ++j) {
      to[j] += more[j];
    }
  }
}

template <class Type>
void dots_wide(const uint8_t* from, int64_t row_bytes, int64_t rows, int64_t blocks, const void* packed, float* to) {
  constexpr int width = lanes == 16 ? 4 : 1;
  auto x = wide_row(const_cast<void*>(packed), blocks);
  int64_t row = 0;
  for (; row + width <= rows; row += width) {
    dot_row<Type, width>(from + row * row_bytes, row_bytes, blocks, x, to + row);
  }
  for (; row < rows; ++row) {
    dot_row<Type, 1>(from + row * row_bytes, row_bytes, blocks, x, to + row);
  }
}

#endif

} // namespace mlxlm::cpu::MLXLM_ISA
