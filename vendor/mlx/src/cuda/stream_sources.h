// Products of one row with a matrix that streams through shared memory, for GPUs that copy by themselves (Hopper and newer).
// cuda/ring_sources.h has the ring; cuda/kernel_sources.h says how MLX wraps a body.
#pragma once

namespace mlxlm::cuda {

// What workers do with a slot. It goes on in the namespace of `ring_header`.
constexpr const char* stream_product_header = R"(// A row of a matrix where it lies.
template <typename T>
struct Row {
  const char* w;
  const T* scales;
  const T* biases;
};

// A matrix (rows, K) where it lies. PAIRED: half of a tile's rows are of its first half, half of its second.
template <typename T, typename M, bool PAIRED = false>
struct Matrix {
  const void* w;
  const T* scales;
  const T* biases;
  int rows;

  __device__ int tiles() const {
    return rows / M::tile;
  }
  __device__ Row<T> row(int tile, int r, int cut) const {
    constexpr int half = M::tile / 2;
    const int64_t at = !PAIRED ? tile * M::tile + r : r < half ? tile * half + r : rows / 2 + tile * half + r - half;
    const int64_t group = at * M::matrix_groups + cut * M::groups;
    return {static_cast<const char*>(w) + at * M::matrix_row_bytes + cut * M::row_bytes, scales + group, biases + group};
  }
  // What the products of one cut are multiplied by.
  __device__ float factor(int) const {
    return 1.0f;
  }
};

// Copies this block's tiles of a matrix. A copy of some KB is as dear as one of some bytes, so scales are not copied.
template <typename M, typename Source, typename R>
__device__ void feed(R& ring, const Source& matrix, int lane) {
  for (int tile = blockIdx.x; tile < matrix.tiles(); tile += gridDim.x) {
    for (int cut = 0; cut < M::cuts; ++cut) {
      ring.open(M::tile * M::row_bytes, lane);
      if (lane < M::tile) {
        ring.copy(ring.slot() + lane * M::stride, matrix.row(tile, lane, cut).w, M::row_bytes);
      }
      ring.next();
    }
  }
}

// The scales and biases that a lane needs for one slot: of rows g and g + 8, of every eight groups numbers 2 t and 2 t + 1.
// They are read a slot ahead, and stay as they come: whatever looks at them waits for them.
template <typename T, typename M>
struct Scales {
  static constexpr int sets = M::packed ? (M::share + 7) / 8 : 1;
  static constexpr int rows = M::tile / 8;
  static constexpr bool by_two = M::share % 2 == 0 && M::matrix_groups % 2 == 0 && M::groups % 2 == 0; // two of them are one word
  uint32_t scale[sets][rows][by_two ? 1 : 2];
  uint32_t bias[sets][rows][by_two ? 1 : 2];

  static __device__ void read_two(const T* from, uint32_t (&two)[by_two ? 1 : 2], bool second) {
    if constexpr (by_two) {
      two[0] = __ldg(reinterpret_cast<const uint32_t*>(from));
    } else {
      two[0] = __ldg(reinterpret_cast<const unsigned short*>(from));
      two[1] = __ldg(reinterpret_cast<const unsigned short*>(from) + (second ? 1 : 0));
    }
  }
  static __device__ float number(const uint32_t (&two)[by_two ? 1 : 2], int i) {
    const unsigned short bits = by_two ? two[0] >> 16 * i : two[by_two ? 0 : i];
    return static_cast<float>(*reinterpret_cast<const T*>(&bits));
  }

  template <typename Source>
  __device__ void read(const Source& matrix, int tile, int cut, int warp, int lane) {
    if constexpr (M::packed) {
      if (tile >= matrix.tiles()) {
        return;
      }
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        const auto from = matrix.row(tile, (lane >> 2) + 8 * r, cut);
#pragma unroll
        for (int i = 0; i < sets; ++i) {
          const int group = i * 8 + (lane & 3) * 2;
          const int at = warp * M::share + group;
          if (group < M::share && M::has(at)) {
            const bool second = group + 1 < M::share && M::has(at + 1);
            read_two(from.scales + at, scale[i][r], second);
            read_two(from.biases + at, bias[i][r], second);
          }
        }
      }
    }
  }

  // Of the block's first slot.
  template <typename Source>
  __device__ void begin(const Source& matrix, int warp, int lane) {
    read(matrix, blockIdx.x, 0, warp, lane);
  }
};

// Volatile, so that reads stay ahead of the products that need them.
template <int WORDS>
__device__ void read_words(const char* from, uint32_t (&words)[WORDS]) {
  const uint32_t at = shared_address(from);
  if constexpr (WORDS == 1) {
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(words[0]) : "r"(at));
  } else if constexpr (WORDS == 2) {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(words[0]), "=r"(words[1]) : "r"(at));
  } else {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(at));
  }
}

// A word of packed weights as pairs: of nibbles four, with `offset` still on them; of bytes two.
template <typename T, int BITS>
__device__ void unpack(uint32_t word, uint32_t mask, uint32_t (&pairs)[16 / BITS]) {
  if constexpr (BITS == 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pairs[i] = (word >> 4 * i & mask) | Halves<T>::placed;
    }
  } else {
    float values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[i] = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7540u | i)) - 8388608.0f;
    }
    pairs[0] = Halves<T>::pair(values[0], values[1]);
    pairs[1] = Halves<T>::pair(values[2], values[3]);
  }
}

// Rows g and g + 8 of a slot times this warp's columns, into sums. `x` and `totals` (of each group of x) are those of the
// whole row.
template <typename T, typename M>
__device__ void multiply_slot(
    const char* slot, const Scales<T, M>& by, const char* x, const float* totals, int cut, int warp, int lane,
    float (&sums)[2]) {
  const int g = lane >> 2;
  const int t = lane & 3;
  const char* row = slot + g * M::stride;
  if constexpr (!M::packed) {
    constexpr int share = M::share;
    float d[2][4] = {};
    const char* xs = x + (cut * M::columns + warp * share + t * 8) * 2;
    row += (warp * share + t * 8) * 2;
#pragma unroll
    for (int k = 0; k < share; k += 32) {
      if (!M::has(warp * share + k)) {
        break;
      }
      const uint4 a = *reinterpret_cast<const uint4*>(row + k * 2);
      const uint4 b = *reinterpret_cast<const uint4*>(xs + k * 2);
      uint4 lower = {0, 0, 0, 0};
      if constexpr (M::tile == 16) {
        lower = *reinterpret_cast<const uint4*>(row + 8 * M::stride + k * 2);
      }
      Halves<T>::multiply(d[0], a.x, lower.x, a.y, lower.y, b.x, b.y);
      Halves<T>::multiply(d[1], a.z, lower.z, a.w, lower.w, b.z, b.w);
    }
    sums[0] += d[0][0] + d[1][0];
    sums[1] += d[0][2] + d[1][2];
  } else {
    // Groups take turns in the eight columns of the second operand, so that each has a sum of its own.
    constexpr int share = M::share;
    constexpr int words = M::lane_bytes / 4;
    constexpr int halves = M::group * M::bits / 32 / M::lane_bytes; // reads for a fourth of a group
    constexpr int pairs_a_word = 16 / M::bits;
    constexpr int pairs = words * pairs_a_word * halves;
    // 0x000f000f, which the compiler does not know: an instruction has room for one constant, so this one has a register.
    const uint32_t mask = 0x000f000eu + blockDim.z;
#pragma unroll
    for (int first = 0; first < share; first += 8) {
      constexpr int most = share < 8 ? share : 8;
      // A tensor core takes long for one product, but starts the next at once: four sums that do not wait for each other.
      float parts[4][4] = {};
      uint32_t xs[pairs];
      const int mine = warp * share + first + g;
      const bool has = first + g < share && M::has(mine);
      // Whether one of the groups that take turns is there.
      const auto takes = [&](int j) { return first + j < share && M::has(warp * share + first + j); };
#pragma unroll
      for (int i = 0; i < pairs; i += 4) {
        uint4 four = {0, 0, 0, 0};
        if (has) {
          four = *reinterpret_cast<const uint4*>(x + ((cut * M::groups + mine) * M::group + t * (M::group / 4) + i * 2) * 2);
        }
        xs[i] = four.x;
        xs[i + 1] = four.y;
        xs[i + 2] = four.z;
        xs[i + 3] = four.w;
      }
      uint32_t upper[most][halves][words];
      uint32_t lower[most][halves][words];
#pragma unroll
      for (int j = 0; j < most; ++j) {
#pragma unroll
        for (int h = 0; h < halves; ++h) {
          if (takes(j)) {
            const char* from = row + (warp * share + first + j) * (M::group * M::bits / 8) + t * (M::lane_bytes * halves) + h * M::lane_bytes;
            read_words(from, upper[j][h]);
            if constexpr (M::tile == 16) {
              read_words(from + 8 * M::stride, lower[j][h]);
            }
          }
        }
      }
#pragma unroll
      for (int j = 0; j < most; ++j) {
        if (takes(j)) {
#pragma unroll
          for (int v = 0; v < words * halves; ++v) {
            uint32_t a[pairs_a_word];
            uint32_t b[pairs_a_word] = {};
            unpack<T, M::bits>(upper[j][v / words][v % words], mask, a);
            if constexpr (M::tile == 16) {
              unpack<T, M::bits>(lower[j][v / words][v % words], mask, b);
            }
#pragma unroll
            for (int i = 0; i < pairs_a_word; i += 2) {
              const int at = v * pairs_a_word + i;
              Halves<T>::multiply(parts[at / 2 % 4], a[i], b[i], a[i + 1], b[i + 1], g == j ? xs[at] : 0u, g == j ? xs[at + 1] : 0u);
            }
          }
        }
      }
      float d[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        d[i] = (parts[0][i] + parts[1][i]) + (parts[2][i] + parts[3][i]);
      }
      constexpr float offset = M::bits == 4 ? Halves<T>::offset : 0.0f;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (takes(2 * t + i)) {
          const int group = warp * share + first + 2 * t + i;
          const float total = totals[cut * M::groups + group];
#pragma unroll
          for (int r = 0; r < M::tile / 8; ++r) {
            const float scale = Scales<T, M>::number(by.scale[first / 8][r], i);
            const float bias = Scales<T, M>::number(by.bias[first / 8][r], i);
            sums[r] += scale * (d[2 * r + i] - offset * total) + bias * total;
          }
        }
      }
    }
  }
}

// This block's tiles times x. `by` are the scales of its first slot. `done(tile, lane, value)` gets the products of a tile
// in the first lanes of one warp. partial: 2 × workers × 16.
template <typename M, typename T, typename Source, typename R, typename Done>
__device__ void multiply(
    R& ring, const Source& matrix, Scales<T, M>& by, const char* x, const float* totals, float* partial, int warp, int lane,
    Done done) {
  const int tiles = matrix.tiles();
  int turn = 0;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x, ++turn) {
    float sums[2] = {};
    for (int cut = 0; cut < M::cuts; ++cut) {
      Scales<T, M> next;
      const bool wraps = cut + 1 == M::cuts;
      next.read(matrix, wraps ? tile + gridDim.x : tile, wraps ? 0 : cut + 1, warp, lane);
      ring.await();
      float products[2] = {};
      multiply_slot<T, M>(ring.slot(), by, x, totals, cut, warp, lane, products);
      ring.release(lane);
      const float factor = matrix.factor(cut);
      sums[0] = fmaf(factor, products[0], sums[0]);
      sums[1] = fmaf(factor, products[1], sums[1]);
      by = next;
    }
    if constexpr (M::packed) {
#pragma unroll
      for (int r = 0; r < M::tile / 8; ++r) {
        sums[r] += __shfl_xor_sync(0xffffffffu, sums[r], 1);
        sums[r] += __shfl_xor_sync(0xffffffffu, sums[r], 2);
      }
    }
    float* here = partial + (turn & 1) * workers * 16;
    if ((lane & 3) == 0) {
#pragma unroll
      for (int r = 0; r < M::tile / 8; ++r) {
        here[warp * 16 + r * 8 + (lane >> 2)] = sums[r];
      }
    }
    join();
    if (warp == turn % workers) {
      float value = 0;
      if (lane < M::tile) {
#pragma unroll
        for (int w = 0; w < workers; ++w) {
          value += here[w * 16 + lane];
        }
      }
      done(tile, lane, value);
    }
  }
}

// Eight values of x, in the order in which M reads them.
template <typename M>
__device__ void place(char* x, int at, uint4 values) {
  *reinterpret_cast<uint4*>(x + at * 2) = M::packed && M::bits == 4 ? interleaved(values) : values;
}

// The sums of the groups of x, by all workers, ahead of a barrier.
template <typename T, typename M>
__device__ void add_groups(const char* x, float* totals, int thread) {
  if constexpr (M::packed) {
    constexpr int parts = M::group / 32;
    constexpr int runs = M::matrix_groups * parts;
    for (int first = 0; first < runs; first += worker_threads) {
      const int run = first + thread;
      float total = 0;
      if (run < runs) {
        const char* values = x + run * 64;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint4 vector = *reinterpret_cast<const uint4*>(values + j * 16);
          const T* eight = reinterpret_cast<const T*>(&vector);
#pragma unroll
          for (int k = 0; k < 8; ++k) {
            total += static_cast<float>(eight[k]);
          }
        }
      }
#pragma unroll
      for (int step = 1; step < parts; step *= 2) {
        total += __shfl_xor_sync(0xffffffffu, total, step);
      }
      if (run < runs && run % parts == 0) {
        totals[run / parts] = total;
      }
    }
  }
}

} // namespace mlxlm_stream
)";

// x (K) times w (N, K): every multiprocessor a block. Output product (N).
constexpr const char* stream_row_source = R"(
  using namespace mlxlm_stream;
  using M = Layout<T, BITS, GROUP, INPUTS, TILE, CUTS>;
  using Slots = Ring<SLOTS, M::slot_bytes>;
  extern __shared__ __align__(128) char memory[];
  char* row = memory + Slots::bytes;
  float* totals = reinterpret_cast<float*>(row + INPUTS * 2);
  float* partial = totals + (M::matrix_groups + 3) / 4 * 4;
  Slots ring(memory);
  const int thread = threadIdx.x;
  const int warp = thread / 32;
  const int lane = thread % 32;
  if (thread == 0) {
    ring.initialize();
  }
  __syncthreads();
  const Matrix<T, M> matrix = {w, SCALES, BIASES, w_shape[0]};
  if (warp == workers) {
    feed<M>(ring, matrix, lane);
    return;
  }
  Scales<T, M> by;
  by.begin(matrix, warp, lane);
  for (int at = thread * 8; at < INPUTS; at += worker_threads * 8) {
    place<M>(row, at, *reinterpret_cast<const uint4*>(x + at));
  }
  join();
  add_groups<T, M>(row, totals, thread);
  join();
  multiply<M>(ring, matrix, by, row, totals, partial, warp, lane, [&](int tile, int at, float value) {
    if (at < TILE) {
      product[tile * TILE + at] = static_cast<T>(value);
    }
  });
)";

} // namespace mlxlm::cuda
