// Blocks whose codes choose vectors of a grid: the IQ types.
#pragma once

#include "cpu/block_parts.h"

namespace mlxlm::cpu::MLXLM_ISA {

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

} // namespace mlxlm::cpu::MLXLM_ISA
