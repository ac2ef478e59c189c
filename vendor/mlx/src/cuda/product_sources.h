// The CUDA kernels of quantized products with several rows. cuda/kernel_sources.h says how MLX wraps a body.
#pragma once

#include "cuda/overlap_sources.h"

namespace mlxlm::cuda {

// Formats of packed weights, and how 32 values of one become operands of a tensor core.
constexpr const char* product_header = R"(
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace mlxlm_products {

enum Mode { affine, mxfp4, mxfp8, nvfp4 };

template <int V>
struct At {
  static constexpr int value = V;
};

template <typename T>
struct Halves;

template <>
struct Halves<__nv_bfloat16> {
  using Pair = __nv_bfloat162;
  static constexpr uint32_t placed = 0x43004300u; // 128, whose last mantissa bits hold a nibble
  static constexpr uint32_t fp4_shift = 6;
  static constexpr uint32_t fp4_factor = 0x7e807e80u; // 2^126
  static __device__ Pair both(float a) { return __float2bfloat162_rn(a); }
  static __device__ Pair pair(float a, float b) { return __floats2bfloat162_rn(a, b); }
  static __device__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

template <>
struct Halves<__half> {
  using Pair = __half2;
  static constexpr uint32_t placed = 0x64006400u; // 1024
  static constexpr uint32_t fp4_shift = 9;
  static constexpr uint32_t fp4_factor = 0x74007400u; // 2^14
  static __device__ Pair both(float a) { return __float2half2_rn(a); }
  static __device__ Pair pair(float a, float b) { return __floats2half2_rn(a, b); }
  static __device__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

template <typename Pair>
__device__ uint32_t bits_of(Pair p) {
  return *reinterpret_cast<uint32_t*>(&p);
}

template <typename Pair>
__device__ Pair pair_of(uint32_t bits) {
  return *reinterpret_cast<Pair*>(&bits);
}

// The scale and bias of a run of 32 values.
template <typename T, int MODE>
struct Scaling {
  using Pair = typename Halves<T>::Pair;
  float scale[MODE == nvfp4 ? 2 : 1];
  float bias;

  template <typename S>
  __device__ void read(const S* scales, const S* biases, int64_t group) {
    read_first(scales, biases, group);
    if constexpr (MODE == nvfp4) {
      scale[1] = e4m3(scales[group + 1]);
    }
  }
  // Of the run's first group alone.
  template <typename S>
  __device__ void read_first(const S* scales, const S* biases, int64_t group) {
    if constexpr (MODE == affine) {
      scale[0] = static_cast<float>(scales[group]);
      bias = static_cast<float>(biases[group]);
    } else if constexpr (MODE == nvfp4) {
      scale[0] = e4m3(scales[group]);
    } else {
      const uint32_t e = scales[group];
      scale[0] = __uint_as_float(e == 0 ? 0x00400000u : e << 23);
    }
  }
  static __device__ float e4m3(uint32_t b) {
    return __uint_as_float((b & 0x80u) << 24 | (b & 0x7fu) << 20) * 0x1p120f;
  }
};

// Values 8 V to 8 V + 7 of a run, as pairs of the values i and i + 4.
template <typename T, int MODE, int BITS, int V>
__device__ void unpack(const uint32_t (&words)[BITS], const Scaling<T, MODE>& by, uint32_t (&pairs)[4]) {
  using H = Halves<T>;
  using Pair = typename H::Pair;
  if constexpr (MODE == affine && BITS == 4) {
    const Pair scale = H::both(by.scale[0]);
    const Pair bias = H::both(by.bias);
    const Pair placed = pair_of<Pair>(H::placed);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t nibbles = (words[V] >> 4 * i & 0x000f000fu) | H::placed;
      pairs[i] = bits_of(__hfma2(__hsub2(pair_of<Pair>(nibbles), placed), scale, bias));
    }
  } else if constexpr (BITS == 4) {
    const Pair scale = H::both(by.scale[MODE == nvfp4 ? V / 2 : 0]);
    const Pair factor = pair_of<Pair>(H::fp4_factor);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t nibbles = words[V] >> 4 * i;
      const uint32_t value = (nibbles & 0x00070007u) << H::fp4_shift | (nibbles & 0x00080008u) << 12;
      pairs[i] = bits_of(__hmul2(__hmul2(pair_of<Pair>(value), factor), scale));
    }
  } else {
    float values[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int bit = (8 * V + i) * BITS;
      const int word = bit / 32;
      const int shift = bit % 32;
      const uint32_t shifted = shift + BITS <= 32
          ? words[word] >> shift
          : __funnelshift_r(words[word], words[word + 1 < BITS ? word + 1 : word], shift);
      const uint32_t code = shifted & ((1u << BITS) - 1);
      if constexpr (MODE == affine) {
        values[i] = fmaf(__uint_as_float(0x4b000000u | code) - 8388608.0f, by.scale[0], by.bias);
      } else {
        values[i] = Scaling<T, MODE>::e4m3(code) * by.scale[0];
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pairs[i] = bits_of(H::pair(values[i], values[i + 4]));
    }
  }
}

// A run of 32 packed values.
template <int BITS>
__device__ void read_run(const uint32_t* from, uint32_t (&words)[BITS]) {
  if constexpr (BITS % 4 == 0) {
#pragma unroll
    for (int i = 0; i < BITS; i += 4) {
      const uint4 four = __ldg(reinterpret_cast<const uint4*>(from + i));
      words[i] = four.x;
      words[i + 1] = four.y;
      words[i + 2] = four.z;
      words[i + 3] = four.w;
    }
  } else if constexpr (BITS % 2 == 0) {
#pragma unroll
    for (int i = 0; i < BITS; i += 2) {
      const uint2 two = __ldg(reinterpret_cast<const uint2*>(from + i));
      words[i] = two.x;
      words[i + 1] = two.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < BITS; ++i) {
      words[i] = __ldg(from + i);
    }
  }
}

// Eight values 0 … 7 of x become 0 4 1 5 2 6 3 7, the order in which `unpack` gives weights.
__device__ uint4 interleaved(uint4 v) {
  return {
      __byte_perm(v.x, v.z, 0x5410), __byte_perm(v.x, v.z, 0x7632), __byte_perm(v.y, v.w, 0x5410),
      __byte_perm(v.y, v.w, 0x7632)};
}

} // namespace mlxlm_products
)";

// Packed weights w (N, K) of 2, 4 or 8 bits with scales and BIASES → weights (N, K), eight values a thread and turn.
constexpr const char* unpack_source = R"(
  using namespace mlxlm_products;
  const int64_t count = static_cast<int64_t>(w_shape[0]) * w_shape[1] * 4 / BITS;
#pragma unroll
  for (int turn = 0; turn < TURNS; ++turn) {
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * TURNS + turn) * blockDim.x + threadIdx.x;
    if (i < count) {
      uint32_t words[BITS] = {};
      if constexpr (BITS == 8) {
        const uint2 two = __ldg(reinterpret_cast<const uint2*>(w) + i);
        words[0] = two.x;
        words[1] = two.y;
      } else if constexpr (BITS == 4) {
        words[0] = __ldg(w + i);
      } else {
        words[0] = __ldg(reinterpret_cast<const unsigned short*>(w) + i);
      }
      Scaling<Out, MODE> by;
      by.read_first(scales, BIASES, i * 8 / GROUP);
      uint32_t p[4];
      unpack<Out, MODE, BITS, 0>(words, by, p);
      reinterpret_cast<uint4*>(weights)[i] = {
          __byte_perm(p[0], p[1], 0x5410), __byte_perm(p[2], p[3], 0x5410), __byte_perm(p[0], p[1], 0x7632),
          __byte_perm(p[2], p[3], 0x7632)};
    }
  }
)";

// x times packed weights, transposed: warps of 16 MTILES outputs, and ROWS rows of x, by mma.m16n8k16 with the weights as
// its first operand. A thread unpacks what it multiplies: from each of its outputs a run of 32 values in a CHUNK of
// 128. The instruction sees them in the order in which they come cheapest out of their words; x is put into shared
// memory in the same order, and a sum does not mind. The grid is (outputs, parts of the inputs, rows), so `product` has
// as many layers as there are parts, which `sum_parts` adds.
// Inputs x (rows, K), w (N, K BITS / 32), scales (N, K / group), for affine formats biases. Output product (parts, rows, N).
// With GATHERED, w and scales have a first axis of experts. SORTED: tiles (3 a tile) has an expert, the first row of x
// and the number of rows. PAIRS: tiles holds the expert of each use, and each row of x has as many of them.
constexpr const char* quantized_tiles_source = R"(
  using namespace mlxlm_products;
  constexpr int NTILES = ROWS / 8;         // of 8 rows of x
  constexpr int CHUNK = 128;               // values of k in one round
  constexpr int STRIDE = 20;               // 16-byte vectors a row in shared memory: 16, and 4 against bank conflicts
  __shared__ uint4 tile[2][ROWS * STRIDE];
#if GATHERED
  const int tile_at = blockIdx.z;
#if GATHERED == SORTED
  const int expert = tiles[3 * tile_at];
  const int first_row = tiles[3 * tile_at + 1];
  const int rows = first_row + tiles[3 * tile_at + 2];
  const int64_t all_rows = x_shape[0];
  if (rows == first_row) {
    return;
  }
#else
  const int expert = min(static_cast<int>(tiles[tile_at]), static_cast<int>(w_shape[0]) - 1);
  const int first_row = tile_at;
  const int rows = tile_at + 1;
  const int64_t all_rows = gridDim.z;
#endif
  const int inputs = x_shape[1];
  const int outputs = w_shape[1];
  const int words_a_row = w_shape[2];
  const int64_t matrix = static_cast<int64_t>(expert) * outputs;
#else
  const int first_row = blockIdx.z * ROWS;
  const int rows = x_shape[0];
  const int64_t all_rows = rows;
  const int inputs = x_shape[1];
  const int outputs = w_shape[0];
  const int words_a_row = w_shape[1];
  const int64_t matrix = 0;
#endif
#if GATHERED
  const int groups = scales_shape[2];
  const int uses = GATHERED == PAIRS ? gridDim.z / x_shape[0] : 1;
#else
  const int groups = scales_shape[1];
  constexpr int uses = 1;
#endif
  const int group_shift = __ffs(inputs / groups) - 1;
  const int warp = threadIdx.x >> 5;
  const int lane = threadIdx.x & 31;
  const int g = lane >> 2;
  const int t = lane & 3;
  const int first = (blockIdx.x * WARPS + warp) * MTILES * 16;
  const int chunks = (inputs + CHUNK - 1) / CHUNK;
  const int begin = static_cast<int>(static_cast<int64_t>(chunks) * blockIdx.y / gridDim.y);
  const int end = static_cast<int>(static_cast<int64_t>(chunks) * (blockIdx.y + 1) / gridDim.y);

  int64_t output[2 * MTILES];
#pragma unroll
  for (int r = 0; r < 2 * MTILES; ++r) {
    output[r] = matrix + min(first + r * 8 + g, outputs - 1);
  }
  uint4 xs[NTILES * 4 / WARPS];
  uint32_t words[2][2 * MTILES][BITS];
  Scaling<T, MODE> scaling[2][2 * MTILES];
  float sums[MTILES][NTILES][4] = {};

  auto read_x = [&](int chunk) {
#pragma unroll
    for (int i = 0; i < NTILES * 4 / WARPS; ++i) {
      const int vector = threadIdx.x + i * 32 * WARPS;
      const int row = first_row + vector / 16;
      const int k = chunk * CHUNK + vector % 16 * 8;
      xs[i] = row < rows && k < inputs
          ? *reinterpret_cast<const uint4*>(x + static_cast<int64_t>(row / uses) * inputs + k)
          : uint4{0, 0, 0, 0};
    }
  };
  auto read_w = [&](int chunk, auto& into, auto& by) {
    const int k = min(chunk * CHUNK + t * 32, inputs - 32);
#pragma unroll
    for (int r = 0; r < 2 * MTILES; ++r) {
      read_run<BITS>(w + output[r] * words_a_row + k / 32 * BITS, into[r]);
      by[r].read(scales, BIASES, output[r] * groups + (k >> group_shift));
    }
  };
  auto multiply = [&](auto V, const uint4* from, auto& weights, auto& by) {
    uint32_t pairs[2 * MTILES][4];
#pragma unroll
    for (int r = 0; r < 2 * MTILES; ++r) {
      unpack<T, MODE, BITS, decltype(V)::value>(weights[r], by[r], pairs[r]);
    }
#pragma unroll
    for (int n = 0; n < NTILES; ++n) {
      const uint4 b = from[(n * 8 + g) * STRIDE + decltype(V)::value * 4 + t];
#pragma unroll
      for (int m = 0; m < MTILES; ++m) {
        const uint32_t low[4] = {pairs[2 * m][0], pairs[2 * m + 1][0], pairs[2 * m][1], pairs[2 * m + 1][1]};
        const uint32_t high[4] = {pairs[2 * m][2], pairs[2 * m + 1][2], pairs[2 * m][3], pairs[2 * m + 1][3]};
        Halves<T>::multiply(sums[m][n], low, b.x, b.y);
        Halves<T>::multiply(sums[m][n], high, b.z, b.w);
      }
    }
  };
  auto round = [&](int chunk, auto& now, auto& by, auto& next, auto& next_by) {
    uint4* here = tile[chunk & 1];
#pragma unroll
    for (int i = 0; i < NTILES * 4 / WARPS; ++i) {
      const int vector = threadIdx.x + i * 32 * WARPS;
      const int column = vector % 16;
      here[vector / 16 * STRIDE + column % 4 * 4 + column / 4] = interleaved(xs[i]);
    }
    __syncthreads();
    if (chunk + 1 < end) {
      read_x(chunk + 1);
      read_w(chunk + 1, next, next_by);
    }
    multiply(At<0>(), here, now, by);
    multiply(At<1>(), here, now, by);
    multiply(At<2>(), here, now, by);
    multiply(At<3>(), here, now, by);
  };

  if (begin < end) {
    read_x(begin);
    read_w(begin, words[0], scaling[0]);
  }
  for (int chunk = begin; chunk < end; chunk += 2) {
    round(chunk, words[0], scaling[0], words[1], scaling[1]);
    if (chunk + 1 < end) {
      round(chunk + 1, words[1], scaling[1], words[0], scaling[0]);
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
          product[(blockIdx.y * all_rows + row) * outputs + to] = static_cast<Out>(sums[m][n][i]);
        }
      }
    }
  }
)";

// Rows sorted by expert, cut into tiles of ROWS: one block. Input indices (uses). Output tiles (uses / ROWS + EXPERTS, 3).
constexpr const char* expert_tiles_source = R"(
  __shared__ int ends[1024];
  const int uses = indices_shape[0];
  const int e = threadIdx.x;
  auto lower = [&](uint32_t value) {
    int low = 0;
    int high = uses;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (indices[middle] < value) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  const int first = e < EXPERTS ? lower(e) : uses;
  const int count = e < EXPERTS ? lower(e + 1) - first : 0;
  const int mine = (count + ROWS - 1) / ROWS;
  ends[e] = mine;
  __syncthreads();
  for (int step = 1; step < blockDim.x; step *= 2) {
    const int before = e >= step ? ends[e - step] : 0;
    __syncthreads();
    ends[e] += before;
    __syncthreads();
  }
  for (int i = 0; i < mine; ++i) {
    const int at = ends[e] - mine + i;
    tiles[3 * at] = e;
    tiles[3 * at + 1] = first + i * ROWS;
    tiles[3 * at + 2] = min(ROWS, count - i * ROWS);
  }
  for (int at = ends[blockDim.x - 1] + e; at < uses / ROWS + EXPERTS; at += blockDim.x) {
    tiles[3 * at + 2] = 0;
  }
)";

// Four sums a thread. Input parts (PARTS, rows, N) in float32. Output product (rows, N).
constexpr const char* sum_parts_source = MLXLM_BEHIND_LAUNCH R"(
  const int64_t size = static_cast<int64_t>(parts_shape[1]) * parts_shape[2];
  const int64_t at = 4 * (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x);
  if (at >= size) {
    return;
  }
  float sums[4] = {};
  if (size % 4 == 0) {
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
      const float4 four = *reinterpret_cast<const float4*>(parts + part * size + at);
      sums[0] += four.x;
      sums[1] += four.y;
      sums[2] += four.z;
      sums[3] += four.w;
    }
  } else {
    for (int i = 0; i < 4 && at + i < size; ++i) {
      for (int part = 0; part < PARTS; ++part) {
        sums[i] += parts[part * size + at + i];
      }
    }
  }
  for (int i = 0; i < 4 && at + i < size; ++i) {
    product[at + i] = static_cast<Out>(sums[i]);
  }
)";

} // namespace mlxlm::cuda
