// Blocks whose codes are numbers, or numbers of a small table.
#pragma once

#include "cpu/block_parts.h"

namespace mlxlm::cpu::MLXLM_ISA {

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

// Factors and minima of eight groups of 32, six bits each, in twelve bytes; the first groups' whole in eight of them, the
// others' with two bits there and four behind. A group's two side by side.
inline C scales_beside_minima(const uint8_t* from) {
  auto first = number_at<uint64_t>(from + 4);
  uint64_t last = number_at<uint32_t>(from + 12);
  uint64_t low = first & 0x3f3f3f3f3f3f3f3f;
  uint64_t high = (first >> 2 & 0x3030303030303030) | ((last | last << 28) & 0x0f0f0f0f0f0f0f0f);
  C codes = joined(low, high);
  return __builtin_shufflevector(codes, codes, 0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
}

inline void scales_and_minima(const uint8_t* from, float* to, float* biases) {
  C codes = scales_beside_minima(from);
  store_scales(
      __builtin_shufflevector(codes, codes, 0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14), half_at(from), to);
  store_scales(
      __builtin_shufflevector(codes, codes, 1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15), -half_at(from + 2),
      biases);
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

} // namespace mlxlm::cpu::MLXLM_ISA
