// Products of one row with a matrix that streams through shared memory, for GPUs that copy by themselves (Hopper and newer).
// cuda_sources.h says how MLX wraps a body.
#pragma once

namespace mlxlm::cuda {

// A block is one warp that feeds and others that multiply. The first copies weights into a ring of slots, as far ahead as
// there is room, also into the next matrix while the others still wait for its input: memory is never idle. A slot has
// TILE rows of a matrix, all or a part of their columns; the workers share the columns, by tensor cores, whose first
// operand is the weights and whose second repeats the row.
constexpr const char* stream_header = R"(
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// MLX writes the kernel's head. A block's nine warps have 168 registers a thread, no more.
#undef __global__
#define __global__ __attribute__((global)) __launch_bounds__(288, 1)

namespace mlxlm_stream {

constexpr int workers = 8;
constexpr int worker_threads = 32 * workers;

template <typename T>
struct Halves;

template <>
struct Halves<__nv_bfloat16> {
  static constexpr uint32_t placed = 0x43004300u; // 128, whose last mantissa bits hold a nibble
  static constexpr float offset = 128.0f;
  static __device__ uint32_t pair(float a, float b) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&both);
  }
  static __device__ void multiply(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
};

template <>
struct Halves<__half> {
  static constexpr uint32_t placed = 0x64006400u; // 1024
  static constexpr float offset = 1024.0f;
  static __device__ uint32_t pair(float a, float b) {
    const __half2 both = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&both);
  }
  static __device__ void multiply(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
};

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Values 0 … 7 become 0 4 1 5 2 6 3 7, the order in which nibbles come out of their words in pairs.
__device__ inline uint4 interleaved(uint4 v) {
  return {
      __byte_perm(v.x, v.z, 0x5410), __byte_perm(v.x, v.z, 0x7632), __byte_perm(v.y, v.w, 0x5410),
      __byte_perm(v.y, v.w, 0x7632)};
}

// How a matrix of INPUTS columns is stored (16 bits: as it is; else affine) and cut: TILE rows and a CUTS-th of the
// columns a slot.
template <typename T, int BITS, int GROUP, int INPUTS, int TILE, int CUTS>
struct Layout {
  static constexpr int bits = BITS;
  static constexpr int group = GROUP;
  static constexpr int inputs = INPUTS;
  static constexpr int tile = TILE;
  static constexpr int cuts = CUTS;
  static constexpr bool packed = BITS != 16;
  static constexpr int columns = INPUTS / CUTS;
  static constexpr int row_bytes = columns * BITS / 8;
  static constexpr int matrix_row_bytes = INPUTS / 8 * BITS;
  static constexpr int groups = packed ? columns / GROUP : 0;
  static constexpr int matrix_groups = packed ? INPUTS / GROUP : 0;
  // What a lane reads at once of a row: of 16-bit numbers 8, of packed ones a fourth of a group, or half of that.
  static constexpr int lane_bytes = packed ? (GROUP * BITS / 32 > 16 ? 16 : GROUP * BITS / 32) : 16;
  // Eight rows times four lanes without bank conflicts.
  static constexpr int stride = row_bytes + (4 * lane_bytes - row_bytes % 128 + 128) % 128;
  static constexpr int slot_bytes = TILE * stride;
  static constexpr int share = packed ? groups / workers : columns / workers; // of a warp: groups, or columns
  static_assert(INPUTS % CUTS == 0 && row_bytes % 16 == 0 && columns % (packed ? workers * GROUP : 32 * workers) == 0);
};

template <int SLOTS, int SLOT_BYTES>
struct Ring {
  uint64_t* full;
  uint64_t* empty;
  char* slots;
  int at = 0;
  uint32_t phase = 0;

  __device__ Ring(char* memory) : full(reinterpret_cast<uint64_t*>(memory)), empty(full + SLOTS), slots(memory + 128) {
    static_assert(SLOTS <= 8);
  }

  static constexpr int bytes = 128 + SLOTS * SLOT_BYTES;

  // By one thread, ahead of a barrier.
  __device__ void initialize() {
    for (int i = 0; i < SLOTS; ++i) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(full + i)) : "memory");
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(empty + i)), "r"(workers) : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }

  __device__ static void wait(uint64_t* barrier, uint32_t parity) {
    uint32_t done = 0;
    while (!done) {
      asm volatile(
          "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
          : "=r"(done)
          : "r"(shared_address(barrier)), "r"(parity)
          : "memory");
    }
  }

  __device__ char* slot() const {
    return slots + at * SLOT_BYTES;
  }
  __device__ void next() {
    if (++at == SLOTS) {
      at = 0;
      phase ^= 1;
    }
  }

  // The feeding warp's side.
  __device__ void open(int bytes, int lane) {
    wait(empty + at, phase ^ 1);
    if (lane == 0) {
      asm volatile(
          "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(full + at)), "r"(bytes)
          : "memory");
    }
    __syncwarp();
  }
  __device__ void copy(char* to, const void* from, int bytes) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared_address(to)),
        "l"(from), "r"(bytes), "r"(shared_address(full + at))
        : "memory");
  }

  // The workers' side.
  __device__ void await() const {
    wait(full + at, phase);
  }
  __device__ void release(int lane) {
    __syncwarp();
    if (lane == 0) {
      asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(empty + at)) : "memory");
    }
    next();
  }
};

// All workers of the block.
__device__ inline void join() {
  asm volatile("bar.sync 1, %0;" ::"n"(worker_threads) : "memory");
}

// A row of a matrix where it lies.
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
  static constexpr bool even = M::share % 2 == 0; // two of them are one word
  uint32_t scale[sets][rows][even ? 1 : 2];
  uint32_t bias[sets][rows][even ? 1 : 2];

  static __device__ void read_two(const T* from, uint32_t (&two)[even ? 1 : 2], bool second) {
    if constexpr (even) {
      two[0] = __ldg(reinterpret_cast<const uint32_t*>(from));
    } else {
      two[0] = __ldg(reinterpret_cast<const unsigned short*>(from));
      two[1] = __ldg(reinterpret_cast<const unsigned short*>(from) + (second ? 1 : 0));
    }
  }
  static __device__ float number(const uint32_t (&two)[even ? 1 : 2], int i) {
    const unsigned short bits = even ? two[0] >> 16 * i : two[even ? 0 : i];
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
          if (group < M::share) {
            read_two(from.scales + warp * M::share + group, scale[i][r], group + 1 < M::share);
            read_two(from.biases + warp * M::share + group, bias[i][r], group + 1 < M::share);
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
      const bool has = first + g < share;
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
          if (first + j < share) {
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
        if (first + j < share) {
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
        if (first + 2 * t + i < share) {
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
