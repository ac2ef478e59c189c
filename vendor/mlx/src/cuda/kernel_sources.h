// The bodies of our CUDA kernels. MLX puts a signature around them: a pointer for each input and output by its name, and
// the template arguments as constants; a kernel that says `w_shape` gets that too.
#pragma once

#include "cuda/overlap_sources.h"

namespace mlxlm::cuda {

// One block a row: VECTOR values a thread and chunk, kept in registers between the two passes.
// Inputs x, delta (rows, DIMS), weight (DIMS). Outputs sum, normed (rows, DIMS). Of delta there may be PARTS in float32, (PARTS, rows,
// DIMS), which are added.
constexpr const char* add_rms_norm_source = MLXLM_BEHIND_LAUNCH R"(
  constexpr int VECTOR = 8;
  constexpr int VECTORS = DIMS / VECTOR;
  using Vector = AlignedVector<T, VECTOR>;
  __shared__ float partial[32];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * DIMS;
  const Vector* xs = reinterpret_cast<const Vector*>(x + first);
  const Vector* weights = reinterpret_cast<const Vector*>(weight);
  Vector* sums = reinterpret_cast<Vector*>(sum + first);
  Vector* results = reinterpret_cast<Vector*>(normed + first);

  Vector values[CHUNKS];
  float squares = 0;
#pragma unroll
  for (int chunk = 0; chunk < CHUNKS; ++chunk) {
    const int i = chunk * blockDim.x + threadIdx.x;
    if (i < VECTORS) {
      const Vector a = xs[i];
      Vector b;
      if constexpr (PARTS == 0) {
        b = reinterpret_cast<const Vector*>(delta + first)[i];
      } else {
        float added[VECTOR] = {};
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
          const int64_t from = static_cast<int64_t>(part) * gridDim.x * DIMS + first + i * VECTOR;
          const AlignedVector<float, VECTOR> more = *reinterpret_cast<const AlignedVector<float, VECTOR>*>(delta + from);
#pragma unroll
          for (int j = 0; j < VECTOR; ++j) {
            added[j] += more[j];
          }
        }
#pragma unroll
        for (int j = 0; j < VECTOR; ++j) {
          b[j] = static_cast<T>(added[j]);
        }
      }
#pragma unroll
      for (int j = 0; j < VECTOR; ++j) {
        values[chunk][j] = static_cast<T>(static_cast<float>(a[j]) + static_cast<float>(b[j]));
        const float value = static_cast<float>(values[chunk][j]);
        squares += value * value;
      }
      sums[i] = values[chunk];
    }
  }

  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
    squares += __shfl_xor_sync(0xffffffffu, squares, step);
  }
  if (lane == 0) {
    partial[threadIdx.x >> 5] = squares;
  }
  __syncthreads();
  squares = lane < (blockDim.x >> 5) ? partial[lane] : 0.0f;
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
    squares += __shfl_xor_sync(0xffffffffu, squares, step);
  }
  const float factor = rsqrtf(squares / DIMS + __int_as_float(EPS));

#pragma unroll
  for (int chunk = 0; chunk < CHUNKS; ++chunk) {
    const int i = chunk * blockDim.x + threadIdx.x;
    if (i < VECTORS) {
      const Vector w = weights[i];
      Vector result;
#pragma unroll
      for (int j = 0; j < VECTOR; ++j) {
        const T scaled = static_cast<T>(static_cast<float>(values[chunk][j]) * factor);
        result[j] = static_cast<T>(static_cast<float>(w[j]) * static_cast<float>(scaled));
      }
      results[i] = result;
    }
  }
)";

// One warp a head. Inputs joint (B, (HEADS + 2 KV_HEADS) DIMS), offset (); with NORMS query_weight, key_weight (DIMS);
// with FREQS freqs (ROTATED / 2). Outputs queries (B, HEADS, DIMS), keys, values (B, KV_HEADS, DIMS).
constexpr const char* rotate_heads_source = R"(
  constexpr int PER_LANE = DIMS / 32;
  constexpr int HALF = ROTATED / 2;
  const int lane = threadIdx.x & 31;
  const int head = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  const int row = blockIdx.y;
  if (head >= HEADS + 2 * KV_HEADS) {
    return;
  }
  const T* in = joint + (static_cast<int64_t>(row) * (HEADS + 2 * KV_HEADS) + head) * DIMS;
  const bool is_value = head >= HEADS + KV_HEADS;
  const bool is_query = head < HEADS;
  T* out = is_query ? queries + (static_cast<int64_t>(row) * HEADS + head) * DIMS
      : is_value ? values + (static_cast<int64_t>(row) * KV_HEADS + head - HEADS - KV_HEADS) * DIMS
                 : keys + (static_cast<int64_t>(row) * KV_HEADS + head - HEADS) * DIMS;

  T mine[PER_LANE];
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i) {
    mine[i] = in[i * 32 + lane];
  }
  if (is_value) {
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
      out[i * 32 + lane] = mine[i];
    }
    return;
  }

#if NORMS
  float squares = 0;
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i) {
    const float value = static_cast<float>(mine[i]);
    squares += value * value;
  }
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
    squares += __shfl_xor_sync(0xffffffffu, squares, step);
  }
  const float factor = rsqrtf(squares / DIMS + __int_as_float(EPS));
  const T* weight = is_query ? query_weight : key_weight;
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i) {
    const T scaled = static_cast<T>(static_cast<float>(mine[i]) * factor);
    mine[i] = static_cast<T>(static_cast<float>(weight[i * 32 + lane]) * static_cast<float>(scaled));
  }
#endif

  const float position = __int_as_float(SCALE) * static_cast<float>(*offset);
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i) {
    const int at = i * 32 + lane;
    if (i * 32 >= ROTATED) {
      out[at] = mine[i];
    } else if (i * 32 < HALF) {
#if FREQS
      const float inverse = 1.0f / freqs[at];
#else
      const float inverse = exp2f(-(static_cast<float>(at) / HALF) * __int_as_float(LOG2_BASE));
#endif
      const float theta = position * inverse;
      float sine, cosine;
      sincosf(theta, &sine, &cosine);
      const float first = static_cast<float>(mine[i]);
      const float second = static_cast<float>(mine[i + HALF / 32]);
      out[at] = static_cast<T>(first * cosine - second * sine);
      out[at + HALF] = static_cast<T>(first * sine + second * cosine);
    }
  }
)";

// One warp for ROWS outputs; a lane takes 16 bytes of packed values at a time. Values become floats by their bits: a
// number placed in the mantissa of a power of two is that power plus the number, and the power is taken off again.
// Inputs x (K), w (N, K * BITS / 32), scales, biases (N, K / GROUP). Output product (N).
constexpr const char* quantized_row_source = R"(
  constexpr int PER_WORD = 32 / BITS;
  constexpr int CHUNK = 4 * PER_WORD;
  const int outputs = w_shape[0];
  const int words = w_shape[1];
  const int inputs = words * PER_WORD;
  const int groups = inputs / GROUP;
  const int lane = threadIdx.x & 31;
  const int first = ((blockIdx.x * blockDim.x + threadIdx.x) >> 5) * ROWS;
  if (first >= outputs) {
    return;
  }
  float results[ROWS] = {};
#pragma unroll 2
  for (int k = lane * CHUNK; k < inputs; k += 32 * CHUNK) {
    uint4 packed[ROWS];
    T scale[ROWS];
    T bias[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const int64_t row = min(first + r, outputs - 1);
      packed[r] = *reinterpret_cast<const uint4*>(w + row * words + k / PER_WORD);
      scale[r] = scales[row * groups + k / GROUP];
      bias[r] = biases[row * groups + k / GROUP];
    }
    float xs[CHUNK];
    float total = 0;
#pragma unroll
    for (int i = 0; i < CHUNK; i += 8) {
      const auto part = *reinterpret_cast<const AlignedVector<T, 8>*>(x + k + i);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        xs[i + j] = static_cast<float>(part[j]);
        total += xs[i + j];
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const uint32_t four[4] = {packed[r].x, packed[r].y, packed[r].z, packed[r].w};
      float dot = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < PER_WORD; ++j) {
          if constexpr (BITS == 4) {
            const uint32_t placed = j < 4 ? four[i] << (16 - 4 * j) : four[i] >> (4 * j - 16);
            dot = fmaf(__uint_as_float(0x43000000u | (placed & 0x000f0000u)), xs[i * PER_WORD + j], dot);
          } else {
            const uint32_t placed = __byte_perm(four[i], 0x47000000u, 0x7604u | (j << 4));
            dot = fmaf(__uint_as_float(placed) - 32768.0f, xs[i * PER_WORD + j], dot);
          }
        }
      }
      if constexpr (BITS == 4) {
        dot -= 128.0f * total;
      }
      results[r] += static_cast<float>(scale[r]) * dot + static_cast<float>(bias[r]) * total;
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
      results[r] += __shfl_xor_sync(0xffffffffu, results[r], step);
    }
    if (lane == 0 && first + r < outputs) {
      product[first + r] = static_cast<T>(results[r]);
    }
  }
)";

// A thread a logit, a row of blocks for each row. Inputs logits (B, V), bits (B, ceil(V / 32)). Output masked (B, V).
constexpr const char* mask_logits_source = R"(
  const int vocabulary = logits_shape[1];
  const int token = blockIdx.x * blockDim.x + threadIdx.x;
  const int64_t row = blockIdx.y;
  if (token >= vocabulary) {
    return;
  }
  const uint32_t word = bits[row * ((vocabulary + 31) / 32) + token / 32];
  const int64_t at = row * vocabulary + token;
  masked[at] = (word >> (token % 32)) & 1 ? logits[at] : static_cast<T>(__int_as_float(0xff800000));
)";

// One block a row. Input x (rows, N). Output place (rows): of the first of the highest; a NaN is never that.
constexpr const char* argmax_source = R"(
  constexpr int VECTOR = 16 / sizeof(T);
  constexpr int AHEAD = 4;
  using Vector = AlignedVector<T, VECTOR>;
  const int count = x_shape[1];
  const T* row = x + static_cast<int64_t>(blockIdx.x) * count;
  const Vector* vectors = reinterpret_cast<const Vector*>(row);
  const int whole = reinterpret_cast<uintptr_t>(row) % sizeof(Vector) == 0 ? count / VECTOR : 0;
  __shared__ float highest[32];
  __shared__ uint32_t places[32];
  float best = __int_as_float(0xff800000);
  uint32_t at = 0;
  auto take = [&](float number, uint32_t its_place) {
    if (number > best || (number == best && its_place < at)) {
      best = number;
      at = its_place;
    }
  };
  for (int first = threadIdx.x; first < whole; first += AHEAD * blockDim.x) {
    Vector values[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; ++u) {
      values[u] = vectors[min(first + u * static_cast<int>(blockDim.x), whole - 1)];
    }
#pragma unroll
    for (int u = 0; u < AHEAD; ++u) {
      float most = static_cast<float>(values[u][0]);
#pragma unroll
      for (int j = 1; j < VECTOR; ++j) {
        most = fmaxf(most, static_cast<float>(values[u][j]));
      }
      if (most > best) {
        best = most;
        const int i = min(first + u * static_cast<int>(blockDim.x), whole - 1);
#pragma unroll
        for (int j = VECTOR - 1; j >= 0; --j) {
          at = static_cast<float>(values[u][j]) == most ? i * VECTOR + j : at;
        }
      }
    }
  }
  for (int i = whole * VECTOR + threadIdx.x; i < count; i += blockDim.x) {
    take(static_cast<float>(row[i]), i);
  }
  auto together = [&] {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
      const float number = __shfl_xor_sync(0xffffffffu, best, step);
      take(number, __shfl_xor_sync(0xffffffffu, at, step));
    }
  };
  const int lane = threadIdx.x % 32;
  together();
  if (lane == 0) {
    highest[threadIdx.x / 32] = best;
    places[threadIdx.x / 32] = at;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    best = lane < blockDim.x / 32 ? highest[lane] : __int_as_float(0xff800000);
    at = lane < blockDim.x / 32 ? places[lane] : 0;
    together();
    if (lane == 0) {
      place[blockIdx.x] = at;
    }
  }
)";

} // namespace mlxlm::cuda
