// Products of many rows: they meet panels of w, unpacked so that outputs lie along the lanes. In floats; in pairs of bf16
// where there is an instruction for those and both sides are exact in bf16; affine integers in pairs too, whose scales
// then wait until the sum over a group is done.
#pragma once

#include "cpu/product_parts.h"
#include "cpu/thread_pool.h"

namespace mlxlm::cpu::MLXLM_ISA {

// A tile of outputs that is summed in registers: rows of x times two vectors of outputs.
constexpr int tile_rows = lanes == 16 ? 12 : 6;
constexpr int tile_columns = 2 * lanes;

// Rows of x that a task goes through per unpacked panel: their sums stay in the second-level cache.
constexpr int64_t rows_per_task = 256;

// A panel is unpacked so much at a time: it stays in the first-level cache.
constexpr int64_t panel_bytes = 16384;

enum class Math { floats, pairs, groups };

template <class Fmt>
Math math_of(const Product& product) {
  if (!has_bf16_dot || product.type != Float::bf16 || product.format == Format::f16 || product.format == Format::f32) {
    return Math::floats;
  }
  if constexpr (is_dense<Fmt>) {
    return Math::pairs;
  }
  // A quantized matrix with groups along the outputs: neighbours along k do not share a scale.
  if (!product.transposed) {
    return Math::floats;
  }
  return Fmt::scaling == Scaling::affine ? Math::groups : Math::pairs;
}

inline U splat_word(const uint32_t* from) {
  return read<uint32_t>(from) - U{};
}

// How many columns of w are unpacked together: outputs lie along the lanes, two vectors a tile.
template <class Fmt>
int64_t panel_columns(const Product& product) {
  return product.transposed ? tile_columns : most(2, Fmt::values) * lanes;
}

// How many numbers along k are unpacked at a time.
template <class Fmt>
int64_t panel_depth(const Product& product, Math math) {
  int64_t depth = panel_bytes / (math == Math::floats ? 4 : 2) / panel_columns<Fmt>(product);
  if (!product.transposed) {
    return depth;
  }
  return math == Math::groups ? round_up(depth, most(128, lanes * Fmt::values)) : round_up(depth, lanes * Fmt::values);
}

template <class Fmt>
size_t block_size(const Product& product, Math math, int64_t rows) {
  if (math == Math::floats) {
    return round_up(product.k * rows * 4, 64);
  }
  int64_t words = (product.k + 1) / 2;
  return round_up((words + (math == Math::groups ? group_count(product, product.k) : 0)) * rows * 4, 64);
}

// Packed rows: for each number along k (or pair of them), one of each row. Behind pairs, for affine formats, the rows'
// sums over each group.
template <class Fmt>
void pack_tiles(const Product& product, const Job& job, const Plan& plan, int64_t block, void* packed) {
  Math math = math_of<Fmt>(product);
  int64_t stride = plan.block_rows;
  int64_t first = block * stride;
  auto row = static_cast<float*>(scratch(0, (product.k + lanes) * sizeof(float)));
  auto to = static_cast<uint32_t*>(packed);
  for (int64_t m = 0; m < stride; ++m) {
    if (first + m < job.rows) {
      read_row(product, job.x, job.x_rows[first + m], product.k + 1, row);
    } else {
      std::memset(row, 0, (product.k + 1) * sizeof(float));
    }
    if (math == Math::floats) {
      for (int64_t k = 0; k < product.k; ++k) {
        to[k * stride + m] = bits_of(row[k]);
      }
      continue;
    }
    // A word's values pair up as its first half with its second.
    constexpr int half = Fmt::values > 1 ? Fmt::values / 2 : 1;
    int64_t words = (product.k + 1) / 2;
    for (int64_t i = 0; i < words; i += half) {
      for (int p = 0; p < half; ++p) {
        to[(i + p) * stride + m] = paired(row[2 * i + p], row[2 * i + p + half]);
      }
    }
    if (math == Math::groups) {
      auto sums = reinterpret_cast<float*>(to + words * stride);
      for (int64_t g = 0; g < group_count(product, product.k); ++g) {
        F total = {};
        for (int64_t k = g * product.group; k < (g + 1) * product.group; k += lanes) {
          total += load(row + k);
        }
        sums[g * stride + m] = sum(total);
      }
    }
  }
}

// Scales and biases of one panel, group by group with the outputs along the lanes.
struct PanelNumbers {
  float* scales;
  float* biases;
};

template <class Fmt>
void turn_numbers(const Product& product, const void* numbers, int64_t column, int64_t count, float* to) {
  int64_t groups = group_count(product, product.k);
  for (int64_t first = 0; first < tile_columns; first += lanes) {
    for (int64_t g = 0; g < groups; g += lanes) {
      U rows[lanes];
      for (int64_t i = 0; i < lanes; ++i) {
        int64_t row = first + i;
        rows[i] = row < count
            ? bits_of(group_numbers<Fmt>(product.type, numbers, (column + row) * groups + g, groups - g))
            : U{};
      }
      transpose(rows);
      for (int64_t i = 0; i < least(lanes, groups - g); ++i) {
        store(to + (g + i) * tile_columns + first, float_of_bits(rows[i]));
      }
    }
  }
}

// Unpacks numbers [k, k + depth) of outputs [column, column + count) of a transposed matrix: to[k][column], or pairs of
// them. This thread's next panel is `ahead` panels away.
template <class Fmt, Math math>
void unpack_rows(
    const Product& product, const Job& job, int64_t column, int64_t count, int64_t k, int64_t depth,
    const PanelNumbers& numbers, int64_t ahead, uint32_t* to) {
  constexpr int64_t block = lanes * Fmt::values;
  auto w = static_cast<const uint8_t*>(job.w) + column * product.row_bytes;
  // Many rows abreast look to the machine like no stream that it could fetch ahead: what this thread will come to next is
  // asked for meanwhile, in memory's order.
  auto upcoming = w + ahead * tile_columns * product.row_bytes;
  for (int half = 0; half < 2; ++half) {
    for (int64_t from = k; from < k + depth; from += block) {
      U words[lanes];
      auto next = upcoming + (2 * bytes_of<Fmt>(from) + half * Fmt::block_bytes) * lanes;
      for (int i = 0; i < lanes; ++i) {
        __builtin_prefetch(next + i * Fmt::block_bytes, 0, 2);
        int64_t row = half * lanes + i;
        words[i] = row < count
            ? some_words<Fmt>(w + row * product.row_bytes + bytes_of<Fmt>(from), k + depth - from)
            : U{};
      }
      transpose(words);
      for (int l = 0; l < lanes && from + l * Fmt::values < k + depth; ++l) {
        int64_t at = from - k + l * Fmt::values;
        F scale = {};
        F bias = {};
        if constexpr (!is_dense<Fmt> && math != Math::groups) {
          int64_t group = (k + at) / product.group;
          scale = load(numbers.scales + group * tile_columns + half * lanes);
          if constexpr (Fmt::scaling == Scaling::affine) {
            bias = load(numbers.biases + group * tile_columns + half * lanes);
          }
        }
        auto value = [&](int j) {
          F plain = Fmt::value(words[l], j);
          if constexpr (is_dense<Fmt> || math == Math::groups) {
            return plain;
          } else if constexpr (Fmt::scaling == Scaling::affine) {
            return plain * scale + bias;
          } else {
            return plain * scale;
          }
        };
        if constexpr (math == Math::floats) {
#pragma GCC unroll 16
          for (int j = 0; j < Fmt::values; ++j) {
            store(reinterpret_cast<float*>(to) + (at + j) * tile_columns + half * lanes, value(j));
          }
        } else if constexpr (Fmt::values == 2) {
          std::memcpy(to + at / 2 * tile_columns + half * lanes, &words[l], sizeof(U));
        } else {
          constexpr int half_values = Fmt::values > 1 ? Fmt::values / 2 : 1;
#pragma GCC unroll 8
          for (int j = 0; j < half_values; ++j) {
            U pair;
            if constexpr (math == Math::groups && Fmt::has_pairs) {
              pair = Fmt::pair(words[l], j);
            } else {
              pair = paired(value(j), value(j + half_values));
            }
            std::memcpy(to + (at / 2 + j) * tile_columns + half * lanes, &pair, sizeof(U));
          }
        }
      }
    }
  }
}

// Where column `i` of an unpacked panel of an untransposed matrix lies in it: by value, then lane.
template <class Fmt>
inline int64_t place_of(int64_t i) {
  int64_t within = i % (lanes * Fmt::values);
  return i - within + within % Fmt::values * lanes + within / Fmt::values;
}

// Unpacks rows [k, k + depth) of columns [column, column + count) of a matrix as it lies: to[tile][k][column of tile],
// columns in the order of place_of.
template <class Fmt, Math math>
void unpack_columns(
    const Product& product, const Job& job, int64_t column, int64_t count, int64_t k, int64_t depth, uint32_t* to) {
  constexpr int64_t block = lanes * Fmt::values;
  constexpr int vectors = Fmt::values > 1 ? Fmt::values : 2;
  auto w = static_cast<const uint8_t*>(job.w) + bytes_of<Fmt>(column);
  if constexpr (math == Math::pairs) {
    int64_t pairs = (depth + 1) / 2;
    for (int64_t i = 0; i < pairs; ++i) {
      auto row = w + (k + 2 * i) * product.row_bytes;
      U low = some_words<Fmt>(row, count);
      U high = 2 * i + 1 < depth ? some_words<Fmt>(row + product.row_bytes, count) : U{};
      U even = (low & 0xffff) | high << 16;
      U odd = low >> 16 | (high & 0xffff0000);
      std::memcpy(to + i * tile_columns, &even, sizeof(U));
      std::memcpy(to + i * tile_columns + lanes, &odd, sizeof(U));
    }
  } else {
    int64_t groups = group_count(product, product.n);
    int64_t first_group = product.group ? column / product.group : 0;
    int64_t some_groups = product.group ? group_count(product, count) : 0;
    U group_of_lane;
    for (int l = 0; l < lanes; ++l) {
      group_of_lane[l] = product.group ? l / (product.group / Fmt::values) : 0;
    }
    for (int64_t i = 0; i < depth; ++i) {
      F scale = {};
      F bias = {};
      if constexpr (!is_dense<Fmt>) {
        int64_t at = (k + i) * groups + first_group;
        scale = permute(group_numbers<Fmt>(product.type, job.scales, at, some_groups), group_of_lane);
        if constexpr (Fmt::scaling == Scaling::affine) {
          bias = permute(group_numbers<Fmt>(product.type, job.biases, at, some_groups), group_of_lane);
        }
      }
      auto row = w + (k + i) * product.row_bytes;
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) {
        int64_t from = v / Fmt::values * block;
        U words = count > from ? some_words<Fmt>(row + bytes_of<Fmt>(from), count - from) : U{};
        F value = Fmt::value(words, v % Fmt::values);
        if constexpr (Fmt::scaling == Scaling::affine) {
          value = value * scale + bias;
        } else if constexpr (!is_dense<Fmt>) {
          value = value * scale;
        }
        store(reinterpret_cast<float*>(to) + (v / 2 * depth + i) * tile_columns + v % 2 * lanes, value);
      }
    }
  }
}

// sums[row][column] += Σ x[i][row] w[i][column] over `depth` floats.
template <int rows>
void add_floats(const uint32_t* x, const uint32_t* w, int64_t depth, int64_t stride, float* sums) {
  F totals[rows][2];
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
    totals[m][0] = load(sums + m * stride);
    totals[m][1] = load(sums + m * stride + lanes);
  }
  for (int64_t i = 0; i < depth; ++i) {
    F low = read<F>(w + i * tile_columns);
    F high = read<F>(w + i * tile_columns + lanes);
#pragma GCC unroll 12
    for (int m = 0; m < rows; ++m) {
      F number = splat(read<float>(x + i * rows + m));
      totals[m][0] += number * low;
      totals[m][1] += number * high;
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
    store(sums + m * stride, totals[m][0]);
    store(sums + m * stride + lanes, totals[m][1]);
  }
}

// The same over `depth` pairs of bf16.
template <int rows>
void add_pairs(const uint32_t* x, const uint32_t* w, int64_t depth, int64_t stride, float* sums) {
  F totals[rows][2];
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
    totals[m][0] = load(sums + m * stride);
    totals[m][1] = load(sums + m * stride + lanes);
  }
  for (int64_t i = 0; i < depth; ++i) {
    U low = read<U>(w + i * tile_columns);
    U high = read<U>(w + i * tile_columns + lanes);
#pragma GCC unroll 12
    for (int m = 0; m < rows; ++m) {
      U number = splat_word(x + i * rows + m);
      totals[m][0] = add_pairs(totals[m][0], low, number);
      totals[m][1] = add_pairs(totals[m][1], high, number);
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
    store(sums + m * stride, totals[m][0]);
    store(sums + m * stride + lanes, totals[m][1]);
  }
}

// The same over `depth` pairs of one group of integers, then scale and bias: x_sums are the rows' sums over it.
template <int rows>
void add_group(
    const uint32_t* x, const uint32_t* w, int64_t depth, const float* scales, const float* biases, const float* x_sums,
    float* sums) {
  F totals[rows][2] = {};
  for (int64_t i = 0; i < depth; ++i) {
    U low = read<U>(w + i * tile_columns);
    U high = read<U>(w + i * tile_columns + lanes);
#pragma GCC unroll 12
    for (int m = 0; m < rows; ++m) {
      U number = splat_word(x + i * rows + m);
      totals[m][0] = add_pairs(totals[m][0], low, number);
      totals[m][1] = add_pairs(totals[m][1], high, number);
    }
  }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    F scale = load(scales + half * lanes);
    F bias = load(biases + half * lanes);
#pragma GCC unroll 12
    for (int m = 0; m < rows; ++m) {
      float* to = sums + m * tile_columns + half * lanes;
      store(to, load(to) + totals[m][half] * scale + splat(x_sums[m]) * bias);
    }
  }
}

// Calls `body` with a type that holds `rows` as a constant.
template <int rows>
struct Rows {
  static constexpr int value = rows;
};
template <int rows = tile_rows, class Body>
inline void with_rows(int64_t wanted, Body&& body) {
  if constexpr (rows > 0) {
    if (wanted == rows) {
      body(Rows<rows>());
    } else {
      with_rows<rows - 1>(wanted, body);
    }
  }
}

// Writes the sums of some rows as outputs [column, column + count).
template <class Fmt>
void write_rows(
    const Product& product, const Job& job, const float* sums, int64_t stride, int64_t first, int64_t end,
    int64_t column, int64_t count) {
  for (int64_t m = first; m < end; ++m) {
    const float* from = sums + (m - first) * stride;
    int64_t at = job.out_rows[m] + column;
    alignas(64) float ordered[16 * lanes];
    if (!product.transposed && Fmt::values > 1) {
      for (int64_t i = 0; i < stride; ++i) {
        ordered[i] = from[place_of<Fmt>(i)];
      }
      from = ordered;
    }
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      store_as(product.type, job.out, at + i, load(from + i));
    }
    if (i < count) {
      store_some_as(product.type, job.out, at + i, load(from + i), count - i);
    }
  }
}

template <class Fmt, Math math>
void multiply_tiles(
    const Product& product, const Job& job, const Plan& plan, const void* packed, int64_t panel, int64_t first,
    int64_t last) {
  int64_t rows = plan.block_rows;
  int64_t columns = panel_columns<Fmt>(product);
  int64_t column = panel * columns;
  int64_t count = least(columns, product.n - column);
  int64_t depth = panel_depth<Fmt>(product, math);
  int64_t groups = product.transposed ? group_count(product, product.k) : 0;

  int64_t sums_size = (last - first) * rows * columns;
  int64_t tile_size = round_up(depth, lanes * Fmt::values) * columns;
  int64_t numbers_size = groups * tile_columns;
  auto sums = static_cast<float*>(
      scratch(0, (sums_size + tile_size + 2 * numbers_size) * sizeof(float)));
  auto tile = reinterpret_cast<uint32_t*>(sums + sums_size);
  float* behind = sums + sums_size + tile_size;
  PanelNumbers numbers = {behind, behind + numbers_size};
  if constexpr (!is_dense<Fmt>) {
    if (product.transposed) {
      turn_numbers<Fmt>(product, job.scales, column, count, numbers.scales);
      if constexpr (Fmt::scaling == Scaling::affine) {
        turn_numbers<Fmt>(product, job.biases, column, count, numbers.biases);
      }
    }
  }
  std::memset(sums, 0, sums_size * sizeof(float));

  for (int64_t k = 0; k < product.k; k += depth) {
    int64_t some = least(depth, product.k - k);
    if (product.transposed) {
      unpack_rows<Fmt, math>(product, job, column, count, k, some, numbers, plan.threads, tile);
    } else if constexpr (math != Math::groups) {
      unpack_columns<Fmt, math>(product, job, column, count, k, some, tile);
    }
    with_rows(rows, [&](auto constant) {
      constexpr int tile_height = decltype(constant)::value;
      for (int64_t block = first; block < last; ++block) {
        auto x = reinterpret_cast<const uint32_t*>(static_cast<const char*>(packed) + block * plan.block_bytes);
        float* to = sums + (block - first) * rows * columns;
        if constexpr (math == Math::floats) {
          for (int64_t t = 0; t < columns / tile_columns; ++t) {
            add_floats<tile_height>(
                x + k * rows, tile + t * some * tile_columns, some, columns, to + t * tile_columns);
          }
        } else if constexpr (math == Math::pairs) {
          add_pairs<tile_height>(x + k / 2 * rows, tile, (some + 1) / 2, columns, to);
        } else {
          auto x_sums = reinterpret_cast<const float*>(x + (product.k + 1) / 2 * rows);
          for (int64_t at = 0; at < some; at += product.group) {
            int64_t group = (k + at) / product.group;
            add_group<tile_height>(
                x + (k + at) / 2 * rows, tile + at / 2 * tile_columns, product.group / 2,
                numbers.scales + group * tile_columns, numbers.biases + group * tile_columns, x_sums + group * rows, to);
          }
        }
      }
    });
  }
  write_rows<Fmt>(
      product, job, sums, columns, first * rows, least(last * rows, job.rows), column, count);
}

template <class Fmt>
Plan plan_tiles(const Product& product, int64_t rows, int threads) {
  int64_t blocks = (rows + tile_rows - 1) / tile_rows;
  int64_t block_rows = (rows + blocks - 1) / blocks;
  int64_t columns = panel_columns<Fmt>(product);
  int64_t panels = (product.n + columns - 1) / columns;
  int64_t tasks_wanted = 4 * threads;
  int64_t parts = panels >= tasks_wanted ? 1 : (tasks_wanted + panels - 1) / panels;
  int64_t blocks_per_task = most(1, least(rows_per_task / block_rows, (blocks + parts - 1) / parts));
  return {false, static_cast<int>(block_rows), blocks, blocks_per_task, columns, panels,
          block_size<Fmt>(product, math_of<Fmt>(product), block_rows), threads};
}

} // namespace mlxlm::cpu::MLXLM_ISA
