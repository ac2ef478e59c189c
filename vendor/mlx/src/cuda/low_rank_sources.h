// The CUDA kernels of low-rank updates. cuda/kernel_sources.h says how MLX wraps a body; they stand behind product_header.
#pragma once

namespace mlxlm::cuda {

// x times a thin matrix: 16 rows a block, whose warps share the inner dimension. The thin matrix is float32, and enters
// the tensor cores as a sum of two halves, so that nothing of it is lost but what float32's own sum would lose.
// Inputs x (M, K), thin (K, RANK), or (RANK, K) where TRANSPOSED. Output narrow (M, RANK), float32, times SCALE.
constexpr const char* low_rank_down_source = R"(
  using H = mlxlm_products::Halves<T>;
  using Pair = typename H::Pair;
  constexpr int TILES = RANK / 8;
  __shared__ float partial[WARPS][16][RANK];
  const int rows = x_shape[0];
  const int dims = x_shape[1];
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  const int g = lane >> 2;
  const int t = lane & 3;
  const int first = blockIdx.x * 16;
  const int64_t upper = first + g < rows ? first + g : rows - 1;
  const int64_t lower = first + g + 8 < rows ? first + g + 8 : rows - 1;
  const uint4* uppers = reinterpret_cast<const uint4*>(x + upper * dims);
  const uint4* lowers = reinterpret_cast<const uint4*>(x + lower * dims);

  float sums[TILES][4] = {};
#pragma unroll 2
  for (int k = warp * 32; k < dims; k += WARPS * 32) {
    // A thread's eight values of a row, in the order that the thin matrix is read in, too.
    const int at = k + 8 * t;
    const uint4 above = uppers[at / 8];
    const uint4 below = lowers[at / 8];
    const uint32_t a[2][4] = {{above.x, below.x, above.y, below.y}, {above.z, below.z, above.w, below.w}};
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
      const int n = 8 * tile + g;
      float values[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        values[j] = TRANSPOSED ? thin[static_cast<int64_t>(n) * dims + at + j] : thin[(at + j) * RANK + n];
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t large[2];
        uint32_t small[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float one = values[4 * half + 2 * i];
          const float two = values[4 * half + 2 * i + 1];
          const Pair near = H::pair(one, two);
          large[i] = mlxlm_products::bits_of(near);
          small[i] = mlxlm_products::bits_of(
              H::pair(one - static_cast<float>(near.x), two - static_cast<float>(near.y)));
        }
        H::multiply(sums[tile], a[half], large[0], large[1]);
        H::multiply(sums[tile], a[half], small[0], small[1]);
      }
    }
  }

#pragma unroll
  for (int tile = 0; tile < TILES; ++tile) {
    const int n = 8 * tile + 2 * t;
    partial[warp][g][n] = sums[tile][0];
    partial[warp][g][n + 1] = sums[tile][1];
    partial[warp][g + 8][n] = sums[tile][2];
    partial[warp][g + 8][n + 1] = sums[tile][3];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 16 * RANK; i += blockDim.x) {
    const int row = i / RANK;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
      sum += partial[w][row][i % RANK];
    }
    if (first + row < rows) {
      narrow[static_cast<int64_t>(first + row) * RANK + i % RANK] = sum * __int_as_float(SCALE);
    }
  }
)";

// A narrow matrix times a thin one, added to a base where there is one (BASE): COLUMNS of the result a thread, whose part
// of the thin matrix stays in registers over ROWS rows.
// Inputs base (M, N) with BASE, narrow (M, RANK), thin (RANK, N), or (N, RANK) where TRANSPOSED. Output wide (M, N).
constexpr const char* low_rank_up_source = R"(
  using Vector = AlignedVector<Out, COLUMNS>;
  const int rows = narrow_shape[0];
  const int dims = TRANSPOSED ? thin_shape[0] : thin_shape[1];
  const int column = (blockIdx.x * blockDim.x + threadIdx.x) * COLUMNS;
  if (column >= dims) {
    return;
  }
  float thins[RANK][COLUMNS];
#pragma unroll
  for (int r = 0; r < RANK; ++r) {
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      thins[r][c] = TRANSPOSED ? thin[static_cast<int64_t>(column + c) * RANK + r]
                               : thin[static_cast<int64_t>(r) * dims + column + c];
    }
  }
  const int first = blockIdx.y * ROWS;
  const int last = first + ROWS < rows ? first + ROWS : rows;
  for (int row = first; row < last; ++row) {
    const float4* factors = reinterpret_cast<const float4*>(narrow + static_cast<int64_t>(row) * RANK);
    float sums[COLUMNS] = {};
#pragma unroll
    for (int r = 0; r < RANK; r += 4) {
      const float4 factor = factors[r / 4];
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        sums[c] = fmaf(factor.x, thins[r][c], sums[c]);
        sums[c] = fmaf(factor.y, thins[r + 1][c], sums[c]);
        sums[c] = fmaf(factor.z, thins[r + 2][c], sums[c]);
        sums[c] = fmaf(factor.w, thins[r + 3][c], sums[c]);
      }
    }
    const int64_t place = static_cast<int64_t>(row) * dims + column;
    Vector result;
#if BASE
    const Vector before = *reinterpret_cast<const Vector*>(base + place);
#endif
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      const Out change = static_cast<Out>(sums[c] * __int_as_float(SCALE));
#if BASE
      result[c] = static_cast<Out>(static_cast<float>(before[c]) + static_cast<float>(change));
#else
      result[c] = change;
#endif
    }
    *reinterpret_cast<Vector*>(wide + place) = result;
  }
)";

// The gradient of a thin matrix: sums over rows of x times narrow. Two columns of x a thread, ROWS rows a block, so there
// are parts that are still to be added.
// Inputs x (M, K), narrow (M, RANK). Output parts (M / ROWS, K, RANK), or (M / ROWS, RANK, K) where TRANSPOSED, float32.
constexpr const char* low_rank_outer_source = R"(
  using Two = AlignedVector<T, 2>;
  __shared__ float4 factors[ROWS * RANK / 4];
  const int rows = x_shape[0];
  const int dims = x_shape[1];
  const int first = blockIdx.y * ROWS;
  const int count = first + ROWS < rows ? ROWS : rows - first;
  const float4* narrows = reinterpret_cast<const float4*>(narrow + static_cast<int64_t>(first) * RANK);
  for (int i = threadIdx.x; i < count * RANK / 4; i += blockDim.x) {
    factors[i] = narrows[i];
  }
  __syncthreads();
  const int column = (blockIdx.x * blockDim.x + threadIdx.x) * 2;
  if (column >= dims) {
    return;
  }
  float sums[2][RANK] = {};
  const T* values = x + static_cast<int64_t>(first) * dims + column;
#pragma unroll 4
  for (int row = 0; row < count; ++row) {
    const Two both = *reinterpret_cast<const Two*>(values + static_cast<int64_t>(row) * dims);
#pragma unroll
    for (int r = 0; r < RANK; r += 4) {
      const float4 factor = factors[(row * RANK + r) / 4];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float value = static_cast<float>(both[c]);
        sums[c][r] = fmaf(value, factor.x, sums[c][r]);
        sums[c][r + 1] = fmaf(value, factor.y, sums[c][r + 1]);
        sums[c][r + 2] = fmaf(value, factor.z, sums[c][r + 2]);
        sums[c][r + 3] = fmaf(value, factor.w, sums[c][r + 3]);
      }
    }
  }
  float* part = parts + static_cast<int64_t>(blockIdx.y) * dims * RANK;
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int r = 0; r < RANK; ++r) {
      const int64_t place = TRANSPOSED ? static_cast<int64_t>(r) * dims + column + c
                                       : static_cast<int64_t>(column + c) * RANK + r;
      part[place] = sums[c][r] * __int_as_float(SCALE);
    }
  }
)";

} // namespace mlxlm::cuda
