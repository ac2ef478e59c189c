// Kernels by which ranks on GPUs of one host exchange messages: each writes into the others' memory.
#pragma once

namespace mlxlm::cuda {

// What each rank's memory holds, for `ranks` ranks. A block of threads is a channel of its own: block b of a rank talks with
// block b of the others only, and counts its own rounds.
//
//   lines    [2][rank][block][thread]  16 bytes: 8 of a short message, and twice the round's number
//   chunks   [2][rank][block]          of a long message
//   arrivals [rank][block]             the last round whose chunk is there, each in 32 bytes
//   rounds   [2][block]                of short and long messages: how many there were. Nobody else's business
//
// Rounds alternate between two places. A rank that has finished round n + 1 has heard from everyone in it, so everyone has
// read round n, and its place is free for round n + 2.
constexpr const char* peer_header = R"(
namespace mlxlm {

template <int RANKS, int BLOCKS, int THREADS, int CHUNK>
struct Peers {
  static constexpr size_t LINES = static_cast<size_t>(BLOCKS) * THREADS;
  static constexpr size_t CHUNKS_AT = 2 * RANKS * LINES * 16;
  static constexpr size_t ARRIVALS_AT = CHUNKS_AT + 2 * static_cast<size_t>(RANKS) * BLOCKS * CHUNK;
  static constexpr size_t ROUNDS_AT = ARRIVALS_AT + static_cast<size_t>(RANKS) * BLOCKS * 32;

  const uint64_t* table;

  __device__ char* memory(int rank) const {
    return reinterpret_cast<char*>(table[rank]);
  }
  __device__ char* line(int at, unsigned round, int from, size_t index) const {
    return memory(at) + (((round & 1) * RANKS + from) * LINES + index) * 16;
  }
  __device__ char* chunk(int at, unsigned round, int from) const {
    return memory(at) + CHUNKS_AT + (((round & 1) * RANKS + from) * static_cast<size_t>(BLOCKS) + blockIdx.x) * CHUNK;
  }
  __device__ char* arrival(int at, int from) const {
    return memory(at) + ARRIVALS_AT + (static_cast<size_t>(from) * BLOCKS + blockIdx.x) * 32;
  }
  __device__ volatile unsigned* rounds(int self, int kind) const {
    return reinterpret_cast<volatile unsigned*>(memory(self) + ROUNDS_AT) + kind * BLOCKS + blockIdx.x;
  }
  // Nanoseconds after which a test gives up; 0 waits on.
  __device__ uint64_t patience() const {
    return table[RANKS];
  }
};

struct Wait {
  uint64_t patience;
  uint64_t end;
  unsigned turns;

  __device__ explicit Wait(uint64_t patience) : patience(patience), end(0), turns(0) {}

  __device__ bool is_over() {
    if (patience == 0 || (++turns & 1023) != 0) {
      return false;
    }
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    if (end == 0) {
      end = now + patience;
    }
    return now > end;
  }
};

__device__ inline uint4 read_now(const char* at) {
  uint4 v;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at)
               : "memory");
  return v;
}

__device__ inline void write_now(char* at, uint4 v) {
  asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

__device__ inline unsigned acquire(const char* at) {
  unsigned v;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(at) : "memory");
  return v;
}

__device__ inline void release(char* at, unsigned v) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(at), "r"(v) : "memory");
}

// Piece `index` of x: a slice may begin anywhere.
template <class Piece, class T>
__device__ inline Piece piece_of(const T* x, size_t index) {
  constexpr int EACH = sizeof(Piece) / sizeof(T);
  if (reinterpret_cast<uintptr_t>(x) % sizeof(Piece) == 0) {
    return reinterpret_cast<const Piece*>(x)[index];
  }
  Piece piece;
  for (int i = 0; i < EACH; ++i) {
    reinterpret_cast<T*>(&piece)[i] = x[index * EACH + i];
  }
  return piece;
}

// Pieces of all ranks, one after the other by rank: their sum, made in float32, or each at its place.
template <bool GATHER, class Piece, class T>
struct Joint {
  static constexpr int EACH = sizeof(Piece) / sizeof(T);
  float sums[EACH];

  __device__ void take(int rank, Piece piece, T* out, size_t index, size_t pieces) {
    if constexpr (GATHER) {
      reinterpret_cast<Piece*>(out)[rank * pieces + index] = piece;
    } else {
      const T* values = reinterpret_cast<const T*>(&piece);
      for (int i = 0; i < EACH; ++i) {
        const float value = static_cast<float>(values[i]);
        sums[i] = rank == 0 ? value : sums[i] + value;
      }
    }
  }
  __device__ void end(T* out, size_t index) const {
    if constexpr (!GATHER) {
      Piece piece;
      for (int i = 0; i < EACH; ++i) {
        reinterpret_cast<T*>(&piece)[i] = static_cast<T>(sums[i]);
      }
      reinterpret_cast<Piece*>(out)[index] = piece;
    }
  }
};

} // namespace mlxlm
)";

// Inputs x, table (RANKS + 1): addresses of the ranks' memory here, and the patience; before: orders messages. Outputs joint,
// after: the sum of all ranks' x, or with GATHER all of them. One thread a line.
constexpr const char* peer_short_source = R"(
  const mlxlm::Peers<RANKS, BLOCKS, THREADS, CHUNK> peers{table};
  size_t count = 1;
  for (int axis = 0; axis < x_ndim; ++axis) {
    count *= x_shape[axis];
  }
  const size_t lines = count * sizeof(T) / 8;
  volatile unsigned* rounds = peers.rounds(RANK, 0);
  const unsigned round = *rounds + 1;
  const size_t index = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (index < lines) {
    const uint2 own = mlxlm::piece_of<uint2>(x, index);
    for (int step = 1; step < RANKS; ++step) {
      mlxlm::write_now(peers.line((RANK + step) % RANKS, round, RANK, index), uint4{own.x, round, own.y, round});
    }
    mlxlm::Joint<GATHER, uint2, T> joined;
    mlxlm::Wait wait(peers.patience());
    for (int rank = 0; rank < RANKS; ++rank) {
      uint2 piece = own;
      if (rank != RANK) {
        const char* at = peers.line(RANK, round, rank, index);
        uint4 line = mlxlm::read_now(at);
        while ((line.y != round || line.w != round) && !wait.is_over()) {
          line = mlxlm::read_now(at);
        }
        piece = uint2{line.x, line.z};
      }
      joined.take(rank, piece, joint, index, lines);
    }
    joined.end(joint, index);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    *rounds = round;
  }
)";

// The same of long messages, a chunk a block and round.
constexpr const char* peer_long_source = R"(
  const mlxlm::Peers<RANKS, BLOCKS, THREADS, CHUNK> peers{table};
  size_t count = 1;
  for (int axis = 0; axis < x_ndim; ++axis) {
    count *= x_shape[axis];
  }
  const size_t pieces = count * sizeof(T) / 16;
  const size_t share = (pieces + gridDim.x - 1) / gridDim.x;
  const size_t each = share < CHUNK / 16 ? share : CHUNK / 16;
  volatile unsigned* rounds = peers.rounds(RANK, 1);
  unsigned round = *rounds;
  mlxlm::Wait wait(peers.patience());
  for (size_t done = 0; done < pieces; done += each * gridDim.x) {
    ++round;
    const size_t first = done + blockIdx.x * each;
    const size_t length = first >= pieces ? 0 : pieces - first < each ? pieces - first : each;
    for (size_t i = threadIdx.x; i < length; i += THREADS) {
      const uint4 own = mlxlm::piece_of<uint4>(x, first + i);
      for (int step = 1; step < RANKS; ++step) {
        reinterpret_cast<uint4*>(peers.chunk((RANK + step) % RANKS, round, RANK))[i] = own;
      }
    }
    __syncthreads();
    const int other = threadIdx.x;
    if (other < RANKS && other != RANK) {
      __threadfence_system();
      mlxlm::release(peers.arrival(other, RANK), round);
      // Another rank may be a round ahead.
      while (static_cast<int>(mlxlm::acquire(peers.arrival(RANK, other)) - round) < 0 && !wait.is_over()) {
      }
    }
    __syncthreads();
    for (size_t i = threadIdx.x; i < length; i += THREADS) {
      mlxlm::Joint<GATHER, uint4, T> joined;
      for (int rank = 0; rank < RANKS; ++rank) {
        const uint4 piece = rank == RANK ? mlxlm::piece_of<uint4>(x, first + i)
                                         : mlxlm::read_now(peers.chunk(RANK, round, rank) + i * 16);
        joined.take(rank, piece, joint, first + i, pieces);
      }
      joined.end(joint, first + i);
    }
  }
  if (threadIdx.x == 0) {
    *rounds = round;
  }
)";

} // namespace mlxlm::cuda
