// Products with a matrix of ggml's blocks, its rows along k: one row meets the blocks where they lie; more of them meet
// numbers that were unpacked into the first-level cache.
#pragma once

#include "cpu/block_kernels.h"
#include "cpu/tiles.h"

namespace mlxlm::cpu::MLXLM_ISA {

// Up to so many rows are done as dots.
constexpr int most_block_rows = 8;

// Rows of blocks in a panel at most, a multiple of all vectors' lanes.
constexpr int most_block_panel = 256;

// How many numbers of a row are unpacked at a time; whole blocks of any type.
constexpr int64_t stretch = 512;

inline int64_t blocks_in(const Product& product, int64_t count) {
  return count / product.block_numbers;
}
inline const uint8_t* block_at(const Product& product, const void* w, int64_t row, int64_t k) {
  return static_cast<const uint8_t*>(w) + row * product.row_bytes + blocks_in(product, k) * product.block_bytes;
}
inline void unpack_stretch(const Product& product, const void* w, int64_t row, int64_t k, int64_t count, float* to) {
  block_kernels.unpack(
      product.block_type, product.tables, block_at(product, w, row, k), blocks_in(product, count), to);
}

// Whether nothing may be rounded on the way: 16 bits of x are all that float16 and bf16 have.
inline bool is_exact(const Product& product) {
  return product.type == Float::f32;
}

// What a product of plain floats is: the same with w unpacked.
inline Product unpacked(Product product) {
  product.format = Format::f32;
  return product;
}

// Packed rows: each as floats; one alone as its type's dots read it.
inline void pack_block_dots(const Product& product, const Job& job, const Plan& plan, int64_t block, void* packed) {
  int64_t first = block * plan.block_rows;
  int64_t rows = least(plan.block_rows, job.rows - first);
  if (job.rows == 1) {
    auto numbers = static_cast<float*>(scratch(0, product.k * sizeof(float)));
    read_row(product, job.x, job.x_rows[0], product.k, numbers);
    return block_kernels.pack(product.block_type, is_exact(product), numbers, product.k, packed);
  }
  for (int64_t m = 0; m < rows; ++m) {
    read_row(product, job.x, job.x_rows[first + m], product.k, static_cast<float*>(packed) + m * product.k);
  }
}

// totals[m] += Σ x[m][i] w[i]
template <int rows>
void add_stretch(const float* x, int64_t stride, const float* w, int64_t count, F* totals) {
  F sums[rows];
  for (int m = 0; m < rows; ++m) {
    sums[m] = totals[m];
  }
  for (int64_t i = 0; i < count; i += lanes) {
    F numbers = load(w + i);
#pragma GCC unroll 4
    for (int m = 0; m < rows; ++m) {
      sums[m] += numbers * load(x + m * stride + i);
    }
  }
  for (int m = 0; m < rows; ++m) {
    totals[m] = sums[m];
  }
}

inline void multiply_block_dots(
    const Product& product, const Job& job, const Plan& plan, const void* packed, int64_t panel) {
  int64_t end = least((panel + 1) * plan.panel, product.n);
  if (job.rows == 1) {
    float results[most_block_panel];
    int64_t n = panel * plan.panel;
    block_kernels.dots(
        product.block_type, is_exact(product), product.tables, block_at(product, job.w, n, 0), product.row_bytes, end - n,
        blocks_in(product, product.k), packed, results);
    for (int64_t i = 0; i < end - n; i += lanes) {
      store_some_as(
          product.type, job.out, job.out_rows[0] + n + i, load(results + i), static_cast<int>(least(lanes, end - n - i)));
    }
    return;
  }
  auto numbers = static_cast<float*>(scratch(0, stretch * sizeof(float)));
  for (int64_t n = panel * plan.panel; n < end; ++n) {
    F totals[most_block_rows] = {};
    for (int64_t k = 0; k < product.k; k += stretch) {
      int64_t count = least(stretch, product.k - k);
      unpack_stretch(product, job.w, n, k, count, numbers);
      for (int64_t block = 0; block < plan.blocks; ++block) {
        int64_t first = block * plan.block_rows;
        auto rows = reinterpret_cast<const float*>(static_cast<const char*>(packed) + block * plan.block_bytes) + k;
        switch (least(plan.block_rows, job.rows - first)) {
          case 1:
            add_stretch<1>(rows, product.k, numbers, count, totals + first);
            break;
          case 2:
            add_stretch<2>(rows, product.k, numbers, count, totals + first);
            break;
          case 3:
            add_stretch<3>(rows, product.k, numbers, count, totals + first);
            break;
          default:
            add_stretch<4>(rows, product.k, numbers, count, totals + first);
        }
      }
    }
    for (int64_t m = 0; m < job.rows; ++m) {
      store_some_as(product.type, job.out, job.out_rows[m] + n, splat(sum(totals[m])), 1);
    }
  }
}

inline void multiply_block_tiles(
    const Product& product, const Job& job, const Plan& plan, const void* packed, int64_t panel, int64_t first,
    int64_t last) {
  int64_t rows = plan.block_rows;
  int64_t column = panel * tile_columns;
  int64_t count = least(tile_columns, product.n - column);
  int64_t sums_size = (last - first) * rows * tile_columns;
  int64_t tile_size = stretch * tile_columns;
  auto sums = static_cast<float*>(scratch(0, (sums_size + 2 * tile_size) * sizeof(float)));
  auto tile = reinterpret_cast<uint32_t*>(sums + sums_size);
  float* numbers = sums + sums_size + tile_size;
  std::memset(sums, 0, sums_size * sizeof(float));

  Product plain = unpacked(product);
  plain.row_bytes = stretch * sizeof(float);
  Job own = job;
  own.w = numbers;
  for (int64_t k = 0; k < product.k; k += stretch) {
    int64_t some = least(stretch, product.k - k);
    for (int64_t n = 0; n < count; ++n) {
      unpack_stretch(product, job.w, column + n, k, some, numbers + n * stretch);
    }
    unpack_rows<F32, Math::floats>(plain, own, 0, count, 0, some, {}, 0, tile);
    with_rows(rows, [&](auto constant) {
      for (int64_t block = first; block < last; ++block) {
        auto x = reinterpret_cast<const uint32_t*>(static_cast<const char*>(packed) + block * plan.block_bytes);
        float* to = sums + (block - first) * rows * tile_columns;
        add_floats<decltype(constant)::value>(x + k * rows, tile, some, tile_columns, to);
      }
    });
  }
  write_rows<F32>(plain, job, sums, tile_columns, first * rows, least(last * rows, job.rows), column, count);
}

inline Plan plan_blocks(const Product& product, int64_t rows, int threads) {
  if (rows > most_block_rows) {
    return plan_tiles<F32>(unpacked(product), rows, threads);
  }
  int64_t panel = round_up(most(16, least(most_block_panel, product.n / (threads * 8) + 1)), 4);
  int64_t blocks = (rows + 3) / 4;
  int64_t block_rows = (rows + blocks - 1) / blocks;
  int64_t bytes = rows == 1 ? block_kernels.packed_bytes(product.block_type, is_exact(product), product.k)
                            : product.k * block_rows * static_cast<int64_t>(sizeof(float));
  return {true, static_cast<int>(block_rows), blocks, blocks, panel, (product.n + panel - 1) / panel,
          static_cast<size_t>(round_up(bytes, 64)), threads};
}

inline void pack_blocks(const Product& product, const Job& job, const Plan& plan, int64_t block, void* packed) {
  if (plan.dots) {
    return pack_block_dots(product, job, plan, block, packed);
  }
  pack_tiles<F32>(unpacked(product), job, plan, block, packed);
}

} // namespace mlxlm::cpu::MLXLM_ISA
