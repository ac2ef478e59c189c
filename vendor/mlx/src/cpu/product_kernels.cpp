// Products for one instruction set. Few rows meet w where it lies, its numbers along the lanes (`dots`). More rows meet
// panels of w, unpacked so that outputs lie along the lanes: in floats; in pairs of bf16 where there is an instruction
// for those and both sides are exact in bf16; affine integers in pairs too, whose scales then wait until the sum over a
// group is done.
#include "cpu/formats.h"
#include "cpu/product.h"
#include "cpu/thread_pool.h"

namespace mlxlm::cpu::MLXLM_ISA {
namespace {

// A tile of outputs that is summed in registers: rows of x times two vectors of outputs.
constexpr int tile_rows = lanes == 16 ? 12 : 6;
constexpr int tile_columns = 2 * lanes;

// Up to so many rows are done as dots, in blocks of up to four.
constexpr int most_dots = 8;
constexpr int dots_block = 4;

// Rows of x that a task goes through per unpacked panel: their sums stay in the second-level cache.
constexpr int64_t rows_per_task = 256;

// A panel is unpacked so much at a time: it stays in the first-level cache.
constexpr int64_t panel_bytes = 16384;

enum class Math { floats, pairs, groups };

template <class Fmt>
constexpr bool is_dense = Fmt::scaling == Scaling::none;

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

inline int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
inline int64_t most(int64_t a, int64_t b) {
  return a > b ? a : b;
}

inline int64_t group_count(const Product& product, int64_t count) {
  return product.group ? (count + product.group - 1) / product.group : 0;
}

// A row of x as floats, with zeros up to `padded`.
inline void read_row(const Product& product, const void* x, int64_t from, int64_t padded, float* to) {
  int64_t k = 0;
  if (product.x_step == 1) {
    for (; k + lanes <= product.k; k += lanes) {
      store(to + k, load_as(product.type, x, from + k));
    }
    if (k < product.k) {
      F rest = load_some_as(product.type, x, from + k, product.k - k);
      std::memcpy(to + k, &rest, (product.k - k) * sizeof(float));
    }
  } else {
    for (; k < product.k; ++k) {
      to[k] = load_some_as(product.type, x, from + k * product.x_step, 1)[0];
    }
  }
  std::memset(to + product.k, 0, (padded - product.k) * sizeof(float));
}

// Two floats that are exact in bf16, as a pair.
inline U paired(F low, F high) {
  return bits_of(low) >> 16 | (bits_of(high) & 0xffff0000);
}

#if defined(__AVX512BF16__)
inline F add_pairs(F total, U a, U b) {
  return (F)_mm512_dpbf16_ps((__m512)total, (__m512bh)a, (__m512bh)b);
}
#else
inline F add_pairs(F total, U, U) {
  return total;
}
#endif

inline U splat_word(const uint32_t* from) {
  return read<uint32_t>(from) - U{};
}

// --- few rows

template <class Fmt>
bool dots_in_pairs(const Product& product) {
  return Fmt::has_pairs && product.type == Float::bf16;
}

// Packed rows: block by block of w's numbers, value by value, row by row, the vector that meets it, of floats or pairs
// of bf16. Behind them, for affine formats, each row's sums over groups.
template <class Fmt>
void pack_dots(const Product& product, const Job& job, int64_t first, int64_t rows, float* to) {
  constexpr int64_t block = lanes * Fmt::values;
  int64_t padded = round_up(product.k, block);
  auto row = static_cast<float*>(scratch(0, padded * sizeof(float)));
  int64_t groups = round_up(group_count(product, product.k), lanes);
  float* sums = to + padded * rows;
  for (int64_t m = 0; m < rows; ++m) {
    read_row(product, job.x, job.x_rows[first + m], padded, row);
    for (int64_t b = 0; b < padded / block; ++b) {
      if (dots_in_pairs<Fmt>(product)) {
        constexpr int half = Fmt::values > 1 ? Fmt::values / 2 : 1;
        for (int j = 0; j < half; ++j) {
          float* vector = to + ((b * half + j) * rows + m) * lanes;
          for (int l = 0; l < lanes; ++l) {
            const float* values = row + b * block + l * Fmt::values + j;
            vector[l] = float_of_bits(bits_of(values[0]) >> 16 | (bits_of(values[half]) & 0xffff0000));
          }
        }
        continue;
      }
      for (int j = 0; j < Fmt::values; ++j) {
        float* vector = to + ((b * Fmt::values + j) * rows + m) * lanes;
        for (int l = 0; l < lanes; ++l) {
          vector[l] = row[b * block + l * Fmt::values + j];
        }
      }
    }
    if constexpr (Fmt::scaling == Scaling::affine) {
      for (int64_t g = 0; g < groups; ++g) {
        F total = {};
        int64_t end = least((g + 1) * product.group, product.k);
        for (int64_t k = g * product.group; k < end; k += lanes) {
          total += load(row + k);
        }
        sums[m * groups + g] = sum(total);
      }
    }
  }
}

// What every output of a product's dots has in common.
template <class Fmt>
struct Dots {
  static constexpr int64_t block = lanes * Fmt::values;

  explicit Dots(const Product& product)
      : blocks(product.k / block),
        rest(product.k - blocks * block),
        padded(round_up(product.k, block)),
        groups(group_count(product, product.k)),
        padded_groups(round_up(groups, lanes)) {
    if constexpr (!is_dense<Fmt>) {
      words_per_group = product.group / Fmt::values;
      group_shift = __builtin_ctz(words_per_group);
    }
  }

  int64_t blocks;
  int64_t rest; // numbers behind the whole blocks
  int64_t padded;
  int64_t groups;
  int64_t padded_groups;
  // A power of two, and as many blocks have `lanes` groups.
  int words_per_group = 1;
  int group_shift = 0;
};

// Outputs [n, n + width) of `rows` rows.
template <class Fmt, int rows, int width, bool in_pairs>
void dot(
    const Product& product, const Job& job, const Dots<Fmt>& dots, const int64_t* out_rows, const float* x,
    int64_t n) {
  auto w = static_cast<const uint8_t*>(job.w) + n * product.row_bytes;
  int64_t row_bytes = product.row_bytes;
  F totals[width][rows] = {};

  auto add_block = [&](int64_t b, const U (&words)[width], const F (&scales)[width]) {
    F sums[width][rows];
    const float* vectors = x + b * dots.block * rows / (in_pairs ? 2 : 1);
#pragma GCC unroll 8
    for (int j = 0; in_pairs && j < (Fmt::values + 1) / 2; ++j) {
#pragma GCC unroll 4
      for (int i = 0; i < width; ++i) {
        U pair = {};
        if constexpr (in_pairs) {
          pair = Fmt::pair(words[i], j);
        }
#pragma GCC unroll 4
        for (int m = 0; m < rows; ++m) {
          sums[i][m] = add_pairs(j == 0 ? F{} : sums[i][m], pair, read<U>(vectors + (j * rows + m) * lanes));
        }
      }
    }
#pragma GCC unroll 16
    for (int j = 0; !in_pairs && j < Fmt::values; ++j) {
#pragma GCC unroll 4
      for (int i = 0; i < width; ++i) {
        F value = Fmt::value(words[i], j);
#pragma GCC unroll 4
        for (int m = 0; m < rows; ++m) {
          F product_ = value * load(vectors + (j * rows + m) * lanes);
          sums[i][m] = j == 0 ? product_ : sums[i][m] + product_;
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < width; ++i) {
#pragma GCC unroll 4
      for (int m = 0; m < rows; ++m) {
        if constexpr (is_dense<Fmt>) {
          totals[i][m] += sums[i][m];
        } else {
          totals[i][m] += sums[i][m] * scales[i];
        }
      }
    }
  };

  U words[width];
  F scales[width] = {};
  // The words of block b, and a request for as many of the next rows' words, in memory's order: several rows abreast
  // look to the machine like no stream that it could fetch ahead.
  auto read_words = [&](int64_t b) {
    auto from = w + b * Fmt::block_bytes;
    auto next = w + width * row_bytes + b * (width * Fmt::block_bytes);
#pragma GCC unroll 4
    for (int i = 0; i < width; ++i) {
      words[i] = Fmt::words(from + i * row_bytes);
      __builtin_prefetch(next + i * Fmt::block_bytes);
    }
  };
  auto read_last_words = [&] {
    for (int i = 0; i < width; ++i) {
      words[i] = last_words<Fmt>(w + i * row_bytes + dots.blocks * Fmt::block_bytes, dots.rest);
    }
  };

  if constexpr (is_dense<Fmt>) {
    for (int64_t b = 0; b < dots.blocks; ++b) {
      read_words(b);
      add_block(b, words, scales);
    }
    if (dots.rest > 0) {
      read_last_words();
      add_block(dots.blocks, words, scales);
    }
  } else {
    // `lanes` groups after the other: their scales lie in one vector, from which each block takes its own.
    U place;
    for (int l = 0; l < lanes; ++l) {
      place[l] = l;
    }
    const float* x_sums = x + dots.padded * rows;
    for (int64_t g = 0, b = 0; g < dots.groups; g += lanes) {
      F numbers[width];
#pragma GCC unroll 4
      for (int i = 0; i < width; ++i) {
        int64_t at = (n + i) * dots.groups + g;
        numbers[i] = group_numbers<Fmt>(product.type, job.scales, at, dots.groups - g);
        if constexpr (Fmt::scaling == Scaling::affine) {
          F biases = group_numbers<Fmt>(product.type, job.biases, at, dots.groups - g);
#pragma GCC unroll 4
          for (int m = 0; m < rows; ++m) {
            totals[i][m] += biases * load(x_sums + m * dots.padded_groups + g);
          }
        }
      }
      auto next_scales = [&] {
#pragma GCC unroll 4
        for (int i = 0; i < width; ++i) {
          scales[i] = permute(numbers[i], place >> dots.group_shift);
        }
        place += lanes;
      };
      for (int64_t end = least(b + dots.words_per_group, dots.blocks); b < end; ++b) {
        read_words(b);
        next_scales();
        add_block(b, words, scales);
      }
      if (dots.rest > 0 && g + lanes >= dots.groups) {
        read_last_words();
        next_scales();
        add_block(b, words, scales);
      }
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < rows; ++m) {
    F column[width];
#pragma GCC unroll 4
    for (int i = 0; i < width; ++i) {
      column[i] = totals[i][m];
    }
    store_some_as(product.type, job.out, out_rows[m] + n, sums_of(column), width);
  }
}

// Up to so many bytes a row, several rows of w are read abreast, which costs less. Longer ones come one after the other:
// a stream that the machine fetches ahead by itself, as plain numbers need it first, which cost next to nothing else.
template <class Fmt, int rows>
constexpr int64_t short_row = is_dense<Fmt> && rows == 1 ? 1024 : 4096;

// Outputs [first, end) of a block of `rows` rows.
template <class Fmt, int rows, bool in_pairs>
void dots_in(
    const Product& product, const Job& job, const int64_t* out_rows, const float* x, int64_t first, int64_t end) {
  constexpr int width = lanes == 16 ? (rows == 1 ? 4 : 2) : rows == 1 ? 2 : 1;
  Dots<Fmt> dots(product);
  int64_t n = first;
  for (; n + width <= end && product.row_bytes <= short_row<Fmt, rows>; n += width) {
    dot<Fmt, rows, width, in_pairs>(product, job, dots, out_rows, x, n);
  }
  for (; n < end; ++n) {
    dot<Fmt, rows, 1, in_pairs>(product, job, dots, out_rows, x, n);
  }
}

template <class Fmt, int rows>
void dots(
    const Product& product, const Job& job, const int64_t* out_rows, const float* x, int64_t first, int64_t end) {
  if constexpr (Fmt::has_pairs) {
    if (dots_in_pairs<Fmt>(product)) {
      return dots_in<Fmt, rows, true>(product, job, out_rows, x, first, end);
    }
  }
  dots_in<Fmt, rows, false>(product, job, out_rows, x, first, end);
}

// Blocks meet so many rows of w one after the other, which stay in the first-level cache meanwhile.
constexpr int64_t rows_between_blocks = 16;

// Outputs of one panel, all blocks.
template <class Fmt>
void multiply_dots(const Product& product, const Job& job, const Plan& plan, const void* packed, int64_t panel) {
  int64_t end = least((panel + 1) * plan.panel, product.n);
  int64_t step = plan.blocks == 1 ? plan.panel : rows_between_blocks;
  for (int64_t n = panel * plan.panel; n < end; n += step) {
    int64_t until = least(n + step, end);
    for (int64_t block = 0; block < plan.blocks; ++block) {
      auto x = reinterpret_cast<const float*>(static_cast<const char*>(packed) + block * plan.block_bytes);
      int64_t first = block * plan.block_rows;
      auto out_rows = job.out_rows + first;
      switch (least(plan.block_rows, job.rows - first)) {
        case 1:
          dots<Fmt, 1>(product, job, out_rows, x, n, until);
          break;
        case 2:
          dots<Fmt, 2>(product, job, out_rows, x, n, until);
          break;
        case 3:
          dots<Fmt, 3>(product, job, out_rows, x, n, until);
          break;
        default:
          dots<Fmt, 4>(product, job, out_rows, x, n, until);
      }
    }
  }
}

// --- many rows

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
        to[(i + p) * stride + m] = bits_of(row[2 * i + p]) >> 16 | (bits_of(row[2 * i + p + half]) & 0xffff0000);
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
void turn_numbers(
    const Product& product, const void* numbers, int64_t column, int64_t count, float* row, float* to) {
  int64_t groups = group_count(product, product.k);
  for (int64_t i = 0; i < tile_columns; ++i) {
    if (i < count) {
      copy_group_numbers<Fmt>(product.type, numbers, (column + i) * groups, groups, row);
    } else {
      std::memset(row, 0, groups * sizeof(float));
    }
    for (int64_t g = 0; g < groups; ++g) {
      to[g * tile_columns + i] = row[g];
    }
  }
}

// Unpacks numbers [k, k + depth) of outputs [column, column + count) of a transposed matrix: to[k][column], or pairs of
// them.
template <class Fmt, Math math>
void unpack_rows(
    const Product& product, const Job& job, int64_t column, int64_t count, int64_t k, int64_t depth,
    const PanelNumbers& numbers, uint32_t* to) {
  constexpr int64_t block = lanes * Fmt::values;
  auto w = static_cast<const uint8_t*>(job.w) + column * product.row_bytes;
  for (int half = 0; half < 2; ++half) {
    for (int64_t from = k; from < k + depth; from += block) {
      U words[lanes];
      for (int i = 0; i < lanes; ++i) {
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
      scratch(0, (sums_size + tile_size + 2 * numbers_size + round_up(groups, lanes)) * sizeof(float)));
  auto tile = reinterpret_cast<uint32_t*>(sums + sums_size);
  float* behind = sums + sums_size + tile_size;
  PanelNumbers numbers = {behind, behind + numbers_size};
  if constexpr (!is_dense<Fmt>) {
    if (product.transposed) {
      float* row = behind + 2 * numbers_size;
      turn_numbers<Fmt>(product, job.scales, column, count, row, numbers.scales);
      if constexpr (Fmt::scaling == Scaling::affine) {
        turn_numbers<Fmt>(product, job.biases, column, count, row, numbers.biases);
      }
    }
  }
  std::memset(sums, 0, sums_size * sizeof(float));

  for (int64_t k = 0; k < product.k; k += depth) {
    int64_t some = least(depth, product.k - k);
    if (product.transposed) {
      unpack_rows<Fmt, math>(product, job, column, count, k, some, numbers, tile);
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

// --- the table

Plan plan(const Product& product, int64_t rows, int threads) {
  Plan result = {};
  with_format(product.format, [&](auto format) {
    using Fmt = decltype(format);
    if (product.transposed && rows <= most_dots) {
      int64_t padded = round_up(product.k, lanes * Fmt::values);
      int64_t groups = Fmt::scaling == Scaling::affine ? round_up(group_count(product, product.k), lanes) : 0;
      int64_t panel = round_up(most(16, least(256, product.n / (threads * 8) + 1)), 4);
      int64_t blocks = (rows + dots_block - 1) / dots_block;
      int64_t block_rows = (rows + blocks - 1) / blocks;
      result = {true, static_cast<int>(block_rows), blocks, blocks, panel, (product.n + panel - 1) / panel,
                static_cast<size_t>(round_up((padded + groups) * block_rows * 4, 64))};
      return;
    }
    int64_t blocks = (rows + tile_rows - 1) / tile_rows;
    int64_t block_rows = (rows + blocks - 1) / blocks;
    int64_t columns = panel_columns<Fmt>(product);
    int64_t panels = (product.n + columns - 1) / columns;
    int64_t tasks_wanted = 4 * threads;
    int64_t parts = panels >= tasks_wanted ? 1 : (tasks_wanted + panels - 1) / panels;
    int64_t blocks_per_task = most(1, least(rows_per_task / block_rows, (blocks + parts - 1) / parts));
    result = {false, static_cast<int>(block_rows), blocks, blocks_per_task, columns, panels,
              block_size<Fmt>(product, math_of<Fmt>(product), block_rows)};
  });
  return result;
}

void pack(const Product& product, const Job& job, const Plan& plan, int64_t block, void* packed) {
  with_format(product.format, [&](auto format) {
    using Fmt = decltype(format);
    if (plan.dots) {
      int64_t first = block * plan.block_rows;
      pack_dots<Fmt>(product, job, first, least(plan.block_rows, job.rows - first), static_cast<float*>(packed));
    } else {
      pack_tiles<Fmt>(product, job, plan, block, packed);
    }
  });
}

void multiply(
    const Product& product, const Job& job, const Plan& plan, const void* packed, int64_t panel, int64_t first,
    int64_t last) {
  with_format(product.format, [&](auto format) {
    using Fmt = decltype(format);
    if (plan.dots) {
      return multiply_dots<Fmt>(product, job, plan, packed, panel);
    }
    Math math = math_of<Fmt>(product);
    if constexpr (has_bf16_dot && Fmt::scaling == Scaling::affine) {
      if (math == Math::groups) {
        return multiply_tiles<Fmt, Math::groups>(product, job, plan, packed, panel, first, last);
      }
    } else if constexpr (has_bf16_dot && Fmt::values > 1) {
      if (math == Math::pairs) {
        return multiply_tiles<Fmt, Math::pairs>(product, job, plan, packed, panel, first, last);
      }
    }
    multiply_tiles<Fmt, Math::floats>(product, job, plan, packed, panel, first, last);
  });
}

} // namespace

const ProductKernels product_kernels = {plan, pack, multiply};

} // namespace mlxlm::cpu::MLXLM_ISA
