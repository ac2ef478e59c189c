// How a block multiplies a few rows in 16 bits with weights. cuda/kernel_sources.h says how MLX wraps a kernel's body; this stands ahead of it.
#pragma once

namespace mlxlm::cuda {

// x times w: warps of 16 outputs, and ROWS rows of x, by mma.m16n8k16 with the weights as its first operand. Weights go from memory to
// registers, a chunk ahead: each byte has one reader. A thread multiplies eight numbers in a row of each of its outputs by the same eight
// of x, in shared memory: the instruction sees them in another order, which a sum does not mind. A block has TEAMS of WARPS warps, each
// with a part of the inputs. While the launch before still computes, the first chunk of weights goes to registers, and more of them,
// 24 MB of all blocks, to the cache that all multiprocessors share.
constexpr const char* dense_header = R"(
namespace mlxlm_dense {

template <typename T, int ROWS, int WARPS, int TEAMS>
struct Product {
  static constexpr int tiles = ROWS / 8;
  static constexpr int chunk_inputs = 128;
  static constexpr int stride = 20;
  static constexpr int threads = 32 * WARPS;
  static constexpr int turns = (ROWS * 16 + threads - 1) / threads;
  using Tile = uint4[2][ROWS * stride];

  const T* x;
  const T* w;
  int first_row; // of x
  int rows; // that x has
  int inputs;
  int first; // output of this warp
  int last; // output that there is
  int parts; // of the inputs, over all blocks
  int part;
  int thread; // of a team
  int team;
  int g;
  int t;
  int begin;
  int end;
  const T* from[2];
  uint4 xs[turns];
  uint4 weights[2][2][4];
  float sums[tiles][4] = {};

  // Number i of sums[n]: its output, from the warp's first, and its row.
  __device__ int output(int i) const { return (i >> 1) * 8 + g; }
  __device__ int row(int n, int i) const { return first_row + n * 8 + t * 2 + (i & 1); }

  // Reads weights ahead.
  __device__ void fetch() {
    const int lane = threadIdx.x & 31;
    team = TEAMS == 1 ? 0 : threadIdx.x / threads;
    thread = threadIdx.x - team * threads;
    g = lane >> 2;
    t = lane & 3;
    const int chunks = (inputs + chunk_inputs - 1) / chunk_inputs;
    begin = static_cast<int>(static_cast<int64_t>(chunks) * part / parts);
    end = static_cast<int>(static_cast<int64_t>(chunks) * (part + 1) / parts);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      from[r] = w + static_cast<int64_t>(min(first + r * 8 + g, last)) * inputs;
    }
    if (begin >= end) {
      return;
    }
    read_w(begin, weights[0]);
#if __CUDA_ARCH__ >= 900
    const int blocks = gridDim.x * gridDim.y;
    const int ahead = max(1, (24 << 20) / static_cast<int>(sizeof(T)) / chunk_inputs / (16 * WARPS * TEAMS * blocks));
    const int from_k = (begin + 1) * chunk_inputs;
    const int bytes = (min(min(end, begin + 1 + ahead) * chunk_inputs, inputs) - from_k) * static_cast<int>(sizeof(T));
    if (lane < 16 && bytes > 0) {
      const T* own = w + static_cast<int64_t>(min(first + lane, last)) * inputs + from_k;
      asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(own), "r"(bytes) : "memory");
    }
#endif
  }

  // Multiplies; `tile` is the team's.
  __device__ void multiply(Tile& tile) {
    if (begin < end) {
      read_x(begin);
    }
    for (int chunk = begin; chunk < end; chunk += 2) {
      round(tile, chunk, weights[0], weights[1]);
      if (chunk + 1 < end) {
        round(tile, chunk + 1, weights[1], weights[0]);
      }
    }
  }

  __device__ void read_x(int chunk) {
#pragma unroll
    for (int i = 0; i < turns; ++i) {
      const int vector = thread + i * threads;
      const int row = first_row + vector / 16;
      const int k = chunk * chunk_inputs + vector % 16 * 8;
      xs[i] = vector < ROWS * 16 && row < rows && k < inputs
          ? *reinterpret_cast<const uint4*>(x + static_cast<int64_t>(row) * inputs + k)
          : uint4{0, 0, 0, 0};
    }
  }
  __device__ void read_w(int chunk, uint4 (&into)[2][4]) {
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      const int k = min(chunk * chunk_inputs + v * 32 + t * 8, inputs - 8);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        into[r][v] = __ldcs(reinterpret_cast<const uint4*>(from[r] + k));
      }
    }
  }
  __device__ void join() {
    if constexpr (TEAMS == 1) {
      __syncthreads();
    } else {
      asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "n"(threads) : "memory");
    }
  }
  __device__ void round(Tile& tile, int chunk, const uint4 (&now)[2][4], uint4 (&next)[2][4]) {
    uint4* here = tile[chunk & 1];
#pragma unroll
    for (int i = 0; i < turns; ++i) {
      const int vector = thread + i * threads;
      if (vector < ROWS * 16) {
        here[vector / 16 * stride + vector % 16] = xs[i];
      }
    }
    join();
    if (chunk + 1 < end) {
      read_x(chunk + 1);
      read_w(chunk + 1, next);
    }
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      const uint4& upper = now[0][v];
      const uint4& lower = now[1][v];
      const uint32_t low[4] = {upper.x, lower.x, upper.y, lower.y};
      const uint32_t high[4] = {upper.z, lower.z, upper.w, lower.w};
#pragma unroll
      for (int n = 0; n < tiles; ++n) {
        const uint4 b = here[(n * 8 + g) * stride + v * 4 + t];
        mlxlm_products::Halves<T>::multiply(sums[n], low, b.x, b.y);
        mlxlm_products::Halves<T>::multiply(sums[n], high, b.z, b.w);
      }
    }
  }
};

} // namespace mlxlm_dense
)";

} // namespace mlxlm::cuda
