// The CUDA kernel of products of a few rows in 16 bits. cuda/product_sources.h has its header; cuda/kernel_sources.h says how MLX
// wraps a body.
#pragma once

#include "cuda/overlap_sources.h"

namespace mlxlm::cuda {

// x times w: warps of 16 MTILES outputs, and ROWS rows of x, by mma.m16n8k16 with the weights as its first operand. Weights go
// from memory to registers, a chunk ahead: each byte has one reader. A thread multiplies eight numbers in a row of each of its
// outputs by the same eight of x, in shared memory: the instruction sees them in another order, which a sum does not mind.
// The grid is (outputs, parts of the inputs, rows), so `product` has as many layers as there are parts. While the launch before still
// computes, the first chunk of weights goes to registers, and more of them, 24 MB of all blocks, to the cache that all multiprocessors share.
// Inputs x (rows, K), w (N, K). Output product (parts, rows, N).
constexpr const char* dense_rows_source = R"(
  using namespace mlxlm_products;
  constexpr int NTILES = ROWS / 8;
  constexpr int CHUNK = 128;
  constexpr int STRIDE = 20;
  constexpr int TURNS = (ROWS * 16 + 32 * WARPS - 1) / (32 * WARPS);
  __shared__ uint4 tile[2][ROWS * STRIDE];
  const int first_row = blockIdx.z * ROWS;
  const int rows = x_shape[0];
  const int inputs = x_shape[1];
  const int outputs = w_shape[0];
  const int warp = threadIdx.x >> 5;
  const int lane = threadIdx.x & 31;
  const int g = lane >> 2;
  const int t = lane & 3;
  const int first = (blockIdx.x * WARPS + warp) * MTILES * 16;
  const int chunks = (inputs + CHUNK - 1) / CHUNK;
  const int begin = static_cast<int>(static_cast<int64_t>(chunks) * blockIdx.y / gridDim.y);
  const int end = static_cast<int>(static_cast<int64_t>(chunks) * (blockIdx.y + 1) / gridDim.y);
  const T* from[2 * MTILES];
#pragma unroll
  for (int r = 0; r < 2 * MTILES; ++r) {
    from[r] = w + static_cast<int64_t>(min(first + r * 8 + g, outputs - 1)) * inputs;
  }
  uint4 xs[TURNS];
  uint4 weights[2][2 * MTILES][4];
  float sums[MTILES][NTILES][4] = {};

  auto read_x = [&](int chunk) {
#pragma unroll
    for (int i = 0; i < TURNS; ++i) {
      const int vector = threadIdx.x + i * 32 * WARPS;
      const int row = first_row + vector / 16;
      const int k = chunk * CHUNK + vector % 16 * 8;
      xs[i] = vector < ROWS * 16 && row < rows && k < inputs
          ? *reinterpret_cast<const uint4*>(x + static_cast<int64_t>(row) * inputs + k)
          : uint4{0, 0, 0, 0};
    }
  };
  auto read_w = [&](int chunk, uint4 (&into)[2 * MTILES][4]) {
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      const int k = min(chunk * CHUNK + v * 32 + t * 8, inputs - 8);
#pragma unroll
      for (int r = 0; r < 2 * MTILES; ++r) {
        into[r][v] = __ldcs(reinterpret_cast<const uint4*>(from[r] + k));
      }
    }
  };
  auto round = [&](int chunk, const uint4 (&now)[2 * MTILES][4], uint4 (&next)[2 * MTILES][4]) {
    uint4* here = tile[chunk & 1];
#pragma unroll
    for (int i = 0; i < TURNS; ++i) {
      const int vector = threadIdx.x + i * 32 * WARPS;
      if (vector < ROWS * 16) {
        here[vector / 16 * STRIDE + vector % 16] = xs[i];
      }
    }
    __syncthreads();
    if (chunk + 1 < end) {
      read_x(chunk + 1);
      read_w(chunk + 1, next);
    }
#pragma unroll
    for (int v = 0; v < 4; ++v) {
#pragma unroll
      for (int n = 0; n < NTILES; ++n) {
        const uint4 b = here[(n * 8 + g) * STRIDE + v * 4 + t];
#pragma unroll
        for (int m = 0; m < MTILES; ++m) {
          const uint4& upper = now[2 * m][v];
          const uint4& lower = now[2 * m + 1][v];
          const uint32_t low[4] = {upper.x, lower.x, upper.y, lower.y};
          const uint32_t high[4] = {upper.z, lower.z, upper.w, lower.w};
          Halves<T>::multiply(sums[m][n], low, b.x, b.y);
          Halves<T>::multiply(sums[m][n], high, b.z, b.w);
        }
      }
    }
  };
  if (begin < end) {
    read_w(begin, weights[0]);
#if __CUDA_ARCH__ >= 900
    const int ahead = max(1, (24 << 20) / static_cast<int>(sizeof(T)) / CHUNK / outputs / static_cast<int>(gridDim.y));
    const int from_k = (begin + 1) * CHUNK;
    const int bytes = (min(min(end, begin + 1 + ahead) * CHUNK, inputs) - from_k) * static_cast<int>(sizeof(T));
    for (int r = lane; r < 16 * MTILES && bytes > 0; r += 32) {
      const T* row = w + static_cast<int64_t>(min(first + r, outputs - 1)) * inputs + from_k;
      asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(row), "r"(bytes) : "memory");
    }
#endif
  }
)" MLXLM_BEHIND_LAUNCH R"(
  if (begin < end) {
    read_x(begin);
  }
  for (int chunk = begin; chunk < end; chunk += 2) {
    round(chunk, weights[0], weights[1]);
    if (chunk + 1 < end) {
      round(chunk + 1, weights[1], weights[0]);
    }
  }
#pragma unroll
  for (int m = 0; m < MTILES; ++m) {
#pragma unroll
    for (int n = 0; n < NTILES; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int to = first + m * 16 + (i >> 1) * 8 + g;
        const int row = first_row + n * 8 + t * 2 + (i & 1);
        if (to < outputs && row < rows) {
          product[(static_cast<int64_t>(blockIdx.y) * rows + row) * outputs + to] = static_cast<Out>(sums[m][n][i]);
        }
      }
    }
  }
)";

} // namespace mlxlm::cuda
