// Products of few rows: they meet w where it lies, its numbers along the lanes.
#pragma once

#include "cpu/product_parts.h"
#include "cpu/thread_pool.h"

namespace mlxlm::cpu::MLXLM_ISA {

// Up to so many rows are done as dots, in blocks of up to four.
constexpr int most_dots = 8;
constexpr int dots_block = 4;

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
            vector[l] = float_of_bits(paired(values[0], values[half]));
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
      scale_bytes = Fmt::scaling != Scaling::affine ? 1 : product.type == Float::f32 ? 4 : 2;
      scales_ahead = fetched_ahead * groups / most(product.row_bytes, 1);
    }
  }

  // Asks for the scales that go with the numbers asked for. Of short rows the machine sees too few to fetch them itself.
  void fetch_scales(const Job& job, int64_t at) const {
    int64_t offset = (at + scales_ahead) * scale_bytes;
    __builtin_prefetch(static_cast<const char*>(job.scales) + offset);
    if constexpr (Fmt::scaling == Scaling::affine) {
      __builtin_prefetch(static_cast<const char*>(job.biases) + offset);
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
  int64_t scale_bytes = 0;
  int64_t scales_ahead = 0;
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
  // Asks for as many words as block b has, in memory's order: several rows abreast look to the machine like no stream.
  auto fetch = [&](int64_t b) {
    auto next = w + fetched_ahead + b * (width * Fmt::block_bytes);
#pragma GCC unroll 4
    for (int i = 0; i < width; ++i) {
      __builtin_prefetch(next + i * Fmt::block_bytes);
    }
  };
  auto read_words = [&](int64_t b) {
    fetch(b);
#pragma GCC unroll 4
    for (int i = 0; i < width; ++i) {
      words[i] = Fmt::words(w + b * Fmt::block_bytes + i * row_bytes);
    }
  };
  auto read_last_words = [&] {
    fetch(dots.blocks);
#pragma GCC unroll 4
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
        if (i % 2 == 0) {
          dots.fetch_scales(job, at);
        }
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

template <class Fmt>
Plan plan_dots(const Product& product, int64_t rows, int threads) {
  int64_t padded = round_up(product.k, lanes * Fmt::values);
  int64_t groups = Fmt::scaling == Scaling::affine ? round_up(group_count(product, product.k), lanes) : 0;
  int64_t panel = round_up(most(16, least(256, product.n / (threads * 8) + 1)), 4);
  int64_t blocks = (rows + dots_block - 1) / dots_block;
  int64_t block_rows = (rows + blocks - 1) / blocks;
  return {true, static_cast<int>(block_rows), blocks, blocks, panel, (product.n + panel - 1) / panel,
          static_cast<size_t>(round_up((padded + groups) * block_rows * 4, 64)), threads};
}

} // namespace mlxlm::cpu::MLXLM_ISA
