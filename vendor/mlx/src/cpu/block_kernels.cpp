#include "cpu/block_kernels.h"

#include "cpu/block_dots.h"
#include "cpu/blocks.h"

namespace mlxlm::cpu::MLXLM_ISA {
namespace {

// Calls `body` with each vector of a group: which it is, and its numbers without their scale.
template <int part = 0, class Body>
inline void each_vector(C codes, const Body& body) {
  if constexpr (part * lanes < group) {
    body(part, floats_of<part>(codes));
    each_vector<part + 1>(codes, body);
  }
}

template <class Type>
struct Factors {
  explicit Factors(const uint8_t* from) {
    Type::scales(from, scales, biases);
  }
  alignas(64) float scales[16];
  alignas(64) float biases[16];
};

template <class Type>
void unpack_blocks(const BlockTables& tables, const uint8_t* from, int64_t blocks, float* to) {
  for (int64_t b = 0; b < blocks; ++b, from += Type::bytes, to += Type::numbers) {
    Factors<Type> factors(from);
#pragma GCC unroll 16
    for (int g = 0; g < Type::numbers / group; ++g) {
      F scale = splat(factors.scales[g]);
      each_vector(Type::codes(from, g, tables), [&](int part, F codes) {
        F numbers = codes * scale;
        if constexpr (Type::has_biases) {
          numbers += splat(factors.biases[g]);
        }
        store(to + g * group + part * lanes, numbers);
      });
    }
  }
}

template <class Type>
float dot_blocks(
    const BlockTables& tables, const uint8_t* from, int64_t blocks, const float* x, const float* sums) {
  constexpr int groups = Type::numbers / group;
  // Several sums, so that none waits for the one before.
  F totals[4] = {};
  float rest = 0;
  for (int64_t b = 0; b < blocks; ++b, from += Type::bytes, x += Type::numbers, sums += groups) {
    Factors<Type> factors(from);
#pragma GCC unroll 16
    for (int g = 0; g < groups; ++g) {
      F scale = splat(factors.scales[g]);
      each_vector(Type::codes(from, g, tables), [&](int part, F codes) {
        totals[(g * (group / lanes) + part) % 4] += codes * scale * load(x + g * group + part * lanes);
      });
    }
    if constexpr (Type::has_biases && groups >= lanes) {
#pragma GCC unroll 4
      for (int g = 0; g < groups; g += lanes) {
        totals[g / lanes % 4] += load(factors.biases + g) * load(sums + g);
      }
    } else if constexpr (Type::has_biases) {
      for (int g = 0; g < groups; ++g) {
        rest += factors.biases[g] * sums[g];
      }
    }
  }
  return sum((totals[0] + totals[1]) + (totals[2] + totals[3])) + rest;
}

// Floats, and behind them their sums over groups.
void pack_floats(const float* x, int64_t numbers, float* to) {
  std::memcpy(to, x, numbers * sizeof(float));
  for (int64_t k = 0; k < numbers; k += group) {
    F total = {};
    for (int i = 0; i < group; i += lanes) {
      total += load(x + k + i);
    }
    to[numbers + k / group] = sum(total);
  }
}

template <class Type>
constexpr bool is_wide = has_byte_products && WideCodes<Type>::exist;

void unpack(BlockType type, const BlockTables& tables, const uint8_t* from, int64_t blocks, float* to) {
  with_blocks(type, [&](auto block) { unpack_blocks<decltype(block)>(tables, from, blocks, to); });
}

int64_t packed_bytes(BlockType type, bool exact, int64_t numbers) {
  int64_t bytes = (numbers + numbers / group) * static_cast<int64_t>(sizeof(float));
  with_blocks(type, [&](auto block) {
    if (is_wide<decltype(block)> && !exact) {
      bytes = wide_row_bytes(numbers / wide_block);
    }
  });
  return bytes;
}

void pack(BlockType type, bool exact, const float* x, int64_t numbers, void* to) {
  with_blocks(type, [&](auto block) {
    if constexpr (is_wide<decltype(block)>) {
      if (!exact) {
        return pack_wide<decltype(block)>(x, numbers / wide_block, to);
      }
    }
    pack_floats(x, numbers, static_cast<float*>(to));
  });
}

void dots(
    BlockType type, bool exact, const BlockTables& tables, const uint8_t* from, int64_t row_bytes, int64_t rows, int64_t blocks,
    const void* x, float* to) {
  with_blocks(type, [&](auto block) {
    using Type = decltype(block);
    if constexpr (is_wide<Type>) {
      if (!exact) {
        return dots_wide<Type>(from, row_bytes, rows, blocks, x, to);
      }
    }
    auto numbers = static_cast<const float*>(x);
    for (int64_t row = 0; row < rows; ++row) {
      to[row] = dot_blocks<Type>(tables, from + row * row_bytes, blocks, numbers, numbers + blocks * Type::numbers);
    }
  });
}

void narrow(Float type, const float* from, int64_t count, void* to) {
  for (int64_t i = 0; i < count; i += lanes) {
    store_as(type, to, i, load(from + i));
  }
}

} // namespace

const BlockKernels block_kernels = {unpack, packed_bytes, pack, dots, narrow};

} // namespace mlxlm::cpu::MLXLM_ISA
