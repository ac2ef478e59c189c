// The CUDA kernels of products of a few rows in 16 bits. cuda/dense_parts.h has the work of a block; cuda/kernel_sources.h says how MLX
// wraps a body.
#pragma once

#include "cuda/overlap_sources.h"

namespace mlxlm::cuda {

// The grid is (outputs, parts of the inputs, rows), so `product` has as many layers as there are parts.
// Inputs x (rows, K), w (N, K). Output product (parts, rows, N).
constexpr const char* dense_rows_source = R"(
  using Own = mlxlm_dense::Product<T, ROWS, WARPS, 1>;
  __shared__ typename Own::Tile tile;
  const int outputs = w_shape[0];
  Own own;
  own.x = x;
  own.w = w;
  own.first_row = blockIdx.z * ROWS;
  own.rows = x_shape[0];
  own.inputs = x_shape[1];
  own.first = (blockIdx.x * WARPS + (threadIdx.x >> 5)) * 16;
  own.last = outputs - 1;
  own.parts = gridDim.y;
  own.part = blockIdx.y;
  own.fetch();
)" MLXLM_BEHIND_LAUNCH R"(
  own.multiply(tile);
#pragma unroll
  for (int n = 0; n < Own::tiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int to = own.first + own.output(i);
      const int row = own.row(n, i);
      if (to < outputs && row < own.rows) {
        product[(static_cast<int64_t>(blockIdx.y) * own.rows + row) * outputs + to] = static_cast<Out>(own.sums[n][i]);
      }
    }
  }
)";

// What gates let through of values. In each team half of the warps have gates, and half the same outputs' values; teams have parts of
// the inputs. All leave their sums in shared memory, and share out the outputs.
// Inputs x (rows, K), w (2 N, K): gates, then values. Output out (rows, N).
constexpr const char* gated_rows_source = R"(
  using Own = mlxlm_dense::Product<T, ROWS, WARPS, TEAMS>;
  constexpr int HALF = WARPS / 2;
  constexpr int SUMS = Own::tiles * 4;
  __shared__ typename Own::Tile tiles[TEAMS];
  static_assert(WARPS * SUMS * 32 * sizeof(float) <= sizeof(typename Own::Tile));
  const int outputs = w_shape[0] / 2;
  const int warp = threadIdx.x / 32 % WARPS;
  const int lane = threadIdx.x & 31;
  const int pair = warp % HALF;
  const int which = warp / HALF; // 0: gates, 1: values
  const int first = (blockIdx.x * HALF + pair) * 16;
  Own own;
  own.x = x;
  own.w = w;
  own.first_row = 0;
  own.rows = x_shape[0];
  own.inputs = x_shape[1];
  own.first = which * outputs + first;
  own.last = (which + 1) * outputs - 1;
  own.parts = TEAMS;
  own.part = threadIdx.x / (32 * WARPS);
  own.fetch();
)" MLXLM_BEHIND_LAUNCH R"(
  own.multiply(tiles[own.team]);
  __syncthreads();
  float* room = reinterpret_cast<float*>(tiles);
  auto place = [&](int of, int team, int number) {
    return (((team * 2 + of) * HALF + pair) * SUMS + number) * 32 + lane;
  };
#pragma unroll
  for (int number = 0; number < SUMS; ++number) {
    room[place(which, own.team, number)] = own.sums[number / 4][number % 4];
  }
  __syncthreads();
  auto sum = [&](int of, int number) {
    float all = 0;
#pragma unroll
    for (int team = 0; team < TEAMS; ++team) {
      all += room[place(of, team, number)];
    }
    return mlxlm_token::rounded<Out>(all);
  };
#pragma unroll
  for (int number = own.team * 2 + which; number < SUMS; number += 2 * TEAMS) {
    const int to = first + own.output(number % 4);
    const int row = own.row(number / 4, number % 4);
    if (to < outputs && row < own.rows) {
      out[static_cast<int64_t>(row) * outputs + to] =
          static_cast<Out>(mlxlm_token::gated<Out, GELU>(sum(0, number), sum(1, number)));
    }
  }
)";

} // namespace mlxlm::cuda
