// How weights come into a block of a kernel that streams them: the ring of slots, and how a matrix is cut for it.
#pragma once

namespace mlxlm::cuda {

// A block is one warp that feeds and others that multiply. The first copies weights into a ring of slots, as far ahead as
// there is room, also into the next matrix while the others still wait for its input: memory is never idle. A slot has
// TILE rows of a matrix, all or a part of their columns; the workers share the columns, by tensor cores, whose first
// operand is the weights and whose second repeats the row.
constexpr const char* ring_header = R"(
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
  // Warps share groups, or columns by 32. The last ones have fewer where they are no multiple of the warps.
  static constexpr int pieces = packed ? groups : columns / 32;
  static constexpr bool even = pieces % workers == 0;
  static constexpr int share = (pieces + workers - 1) / workers * (packed ? 1 : 32); // of a warp: groups, or columns
  static __device__ bool has(int at) {
    return even || at < (packed ? groups : columns);
  }
  static_assert(INPUTS % CUTS == 0 && row_bytes % 16 == 0 && columns % (packed ? GROUP : 32) == 0);
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

)";

} // namespace mlxlm::cuda
