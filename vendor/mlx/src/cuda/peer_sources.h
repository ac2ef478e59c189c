// Kernels by which ranks on GPUs of one host exchange messages: each writes into the others' memory.
#pragma once

namespace mlxlm::cuda {

// What each rank's memory holds, for `ranks` ranks. A block of threads is a channel of its own: block b of a rank talks with
// block b of the others only, and counts its own rounds.
//
//   lines    [2][rank][block][thread]  16 bytes: 8 of a short message, and twice the round's number
//   chunks   [4][rank][block]          of a long message
//   arrivals [rank][block]             the last round whose chunk is there, each in 32 bytes
//   rounds   [2][block]                of short and long messages: how many there were. Nobody else's business
//   sums     one number                how many rows of one token were summed
//   rows     [2][rank][line]           16 bytes as in lines: four 16-bit numbers of such a row, from each rank
//
// Rounds of short messages alternate between two places. A rank that has finished round n + 1 has heard from everyone in it, so
// everyone has read round n, and its place is free for round n + 2. Of long messages a rank sends round n + 1 before it reads
// round n: who hears of round n - 1 knows that its sender has read round n - 3, whose place is free for round n + 1.
constexpr const char* peer_header = R"(
namespace mlxlm {

template <int RANKS, int BLOCKS, int THREADS, int CHUNK>
struct Peers {
  static constexpr size_t LINES = static_cast<size_t>(BLOCKS) * THREADS;
  static constexpr size_t CHUNKS_AT = 2 * RANKS * LINES * 16;
  static constexpr size_t ARRIVALS_AT = CHUNKS_AT + 4 * static_cast<size_t>(RANKS) * BLOCKS * CHUNK;
  static constexpr size_t ROUNDS_AT = ARRIVALS_AT + static_cast<size_t>(RANKS) * BLOCKS * 32;
  static constexpr size_t SUMS_AT = ROUNDS_AT + 2 * BLOCKS * 4;
  static constexpr size_t ROW_LINES = 4096;

  const uint64_t* table;

  __device__ char* memory(int rank) const {
    return reinterpret_cast<char*>(table[rank]);
  }
  __device__ char* line(int at, unsigned round, int from, size_t index) const {
    return memory(at) + (((round & 1) * RANKS + from) * LINES + index) * 16;
  }
  __device__ char* chunk(int at, unsigned round, int from) const {
    return memory(at) + CHUNKS_AT + (((round & 3) * RANKS + from) * static_cast<size_t>(BLOCKS) + blockIdx.x) * CHUNK;
  }
  __device__ char* arrival(int at, int from) const {
    return memory(at) + ARRIVALS_AT + (static_cast<size_t>(from) * BLOCKS + blockIdx.x) * 32;
  }
  __device__ volatile unsigned* rounds(int self, int kind, int channel) const {
    return reinterpret_cast<volatile unsigned*>(memory(self) + ROUNDS_AT) + kind * BLOCKS + channel;
  }
  __device__ volatile unsigned* sums(int self) const {
    return reinterpret_cast<volatile unsigned*>(memory(self) + SUMS_AT);
  }
  __device__ char* row_line(int at, unsigned round, int from, int index) const {
    return memory(at) + SUMS_AT + 16 + (((round & 1) * RANKS + from) * ROW_LINES + index) * 16;
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

template <class Piece>
__device__ inline bool is_aligned(const void* at) {
  return reinterpret_cast<uintptr_t>(at) % sizeof(Piece) == 0;
}

// Piece `index` of x, which may begin anywhere unless ALIGNED.
template <class Piece, bool ALIGNED = false, class T>
__device__ inline Piece piece_of(const T* x, size_t index) {
  constexpr int EACH = sizeof(Piece) / sizeof(T);
  if constexpr (ALIGNED) {
    return reinterpret_cast<const Piece*>(x)[index];
  }
  if (is_aligned<Piece>(x)) {
    return reinterpret_cast<const Piece*>(x)[index];
  }
  Piece piece;
  for (int i = 0; i < EACH; ++i) {
    reinterpret_cast<T*>(&piece)[i] = x[index * EACH + i];
  }
  return piece;
}

// What numbers are summed in: integers in their own kind.
template <class T>
struct Summed {
  using Type = float;
};
template <>
struct Summed<int> {
  using Type = int;
};
template <>
struct Summed<unsigned> {
  using Type = unsigned;
};

// Pieces of all ranks, one after the other by rank: their sum, or each at its place.
template <bool GATHER, class Piece, class T>
struct Joint {
  using Sum = typename Summed<T>::Type;
  static constexpr int EACH = sizeof(Piece) / sizeof(T);
  Sum sums[EACH];

  __device__ void take(int rank, Piece piece, T* out, size_t index, size_t pieces) {
    if constexpr (GATHER) {
      reinterpret_cast<Piece*>(out)[rank * pieces + index] = piece;
    } else {
      const T* values = reinterpret_cast<const T*>(&piece);
      for (int i = 0; i < EACH; ++i) {
        const Sum value = static_cast<Sum>(values[i]);
        sums[i] = rank == 0 ? value : sums[i] + value;
      }
    }
  }
  __device__ Piece sum() const {
    Piece piece;
    for (int i = 0; i < EACH; ++i) {
      reinterpret_cast<T*>(&piece)[i] = static_cast<T>(sums[i]);
    }
    return piece;
  }
  __device__ void end(T* out, size_t index) const {
    if constexpr (!GATHER) {
      reinterpret_cast<Piece*>(out)[index] = sum();
    }
  }
};

// Has all ranks send each other x, a chunk a block and round, `unit` pieces of 16 bytes never apart, and calls take(first, length,
// round) with a block's pieces of each round when they are there. A block sends a round ahead of the one that it takes, and each
// multiprocessor has two blocks, so that the link is seldom idle.
template <int RANKS, int RANK, bool ALIGNED, int BLOCKS, int THREADS, int CHUNK, class T, class Take>
__device__ void exchange_chunks(
    const Peers<RANKS, BLOCKS, THREADS, CHUNK>& peers, const T* x, size_t pieces, size_t unit, Take take) {
  const size_t share = (pieces / unit + gridDim.x - 1) / gridDim.x * unit;
  const size_t most = CHUNK / 16 / unit * unit;
  const size_t each = share < most ? share : most;
  const size_t step = each * gridDim.x;
  volatile unsigned* rounds = peers.rounds(RANK, 1, blockIdx.x);
  unsigned round = *rounds;
  const int other = threadIdx.x;
  const bool talks = other < RANKS && other != RANK;
  Wait wait(peers.patience());
  auto length_from = [&](size_t first) {
    return static_cast<int>(first >= pieces ? 0 : pieces - first < each ? pieces - first : each);
  };
  auto send = [&](unsigned round, size_t done) {
    constexpr int AT_ONCE = ALIGNED ? CHUNK / 16 / THREADS : 1;
    const size_t first = done + blockIdx.x * each;
    const int length = length_from(first);
    for (int i = threadIdx.x; i < length; i += AT_ONCE * THREADS) {
      uint4 own[AT_ONCE];
#pragma unroll
      for (int n = 0; n < AT_ONCE; ++n) {
        if (i + n * THREADS < length) {
          own[n] = piece_of<uint4, ALIGNED>(x, first + i + n * THREADS);
        }
      }
      for (int step = 1; step < RANKS; ++step) {
        uint4* at = reinterpret_cast<uint4*>(peers.chunk((RANK + step) % RANKS, round, RANK));
#pragma unroll
        for (int n = 0; n < AT_ONCE; ++n) {
          if (i + n * THREADS < length) {
            at[i + n * THREADS] = own[n];
          }
        }
      }
    }
    __syncthreads();
    if (talks) {
      __threadfence_system();
      release(peers.arrival(other, RANK), round);
    }
  };
  unsigned sent = round;
  // `send` stands once, or the compiler would write it out twice and run out of registers.
  for (size_t next = 0; next < pieces + step; next += step) {
    if (next < pieces) {
      send(++sent, next);
    }
    if (next == 0) {
      continue;
    }
    ++round;
    if (talks) {
      // Another rank may be further.
      while (static_cast<int>(acquire(peers.arrival(RANK, other)) - round) < 0 && !wait.is_over()) {
      }
    }
    __syncthreads();
    const size_t first = next - step + blockIdx.x * each;
    take(first, length_from(first), round);
  }
  if (threadIdx.x == 0) {
    *rounds = round;
  }
}

// Piece `index` of a chunk that exchange_chunks gives, from all ranks.
template <bool GATHER, int RANKS, int RANK, bool ALIGNED, class P, class T>
__device__ Joint<GATHER, uint4, T> chunk_piece(
    const P& peers, const T* x, size_t first, int index, unsigned round, T* out, size_t pieces) {
  Joint<GATHER, uint4, T> joined;
  for (int rank = 0; rank < RANKS; ++rank) {
    const uint4 piece =
        rank == RANK ? piece_of<uint4, ALIGNED>(x, first + index) : read_now(peers.chunk(RANK, round, rank) + index * 16);
    joined.take(rank, piece, out, first + index, pieces);
  }
  return joined;
}

// The sum of all ranks' x, or with GATHER all of them.
template <bool GATHER, int RANKS, int RANK, bool ALIGNED, int BLOCKS, int THREADS, int CHUNK, class T>
__device__ void join_chunks(const Peers<RANKS, BLOCKS, THREADS, CHUNK>& peers, const T* x, size_t pieces, T* joint) {
  exchange_chunks<RANKS, RANK, ALIGNED>(peers, x, pieces, 1, [&](size_t first, int length, unsigned round) {
#pragma unroll 4
    for (int i = threadIdx.x; i < length; i += THREADS) {
      chunk_piece<GATHER, RANKS, RANK, ALIGNED>(peers, x, first, i, round, joint, pieces).end(joint, first + i);
    }
  });
}

// Rows of one token that a kernel sums over ranks as it goes, four numbers a line, each line by whichever threads have it. Each
// launch takes `count` sums, in each of which every line is sent and received by every rank before its blocks meet or end: so
// a rank that sends in round n + 2 has all of round n + 1, which nobody began to send before having read round n.
template <typename T, class P>
struct RowSum {
  P peers;
  int rank;
  int ranks;
  unsigned round; // of the sum in hand

  // By all threads that send or receive, before their blocks first meet.
  __device__ RowSum(const uint64_t* table, int rank, int ranks) : peers{table}, rank(rank), ranks(ranks) {
    round = *peers.sums(rank) + 1;
  }
  // By one thread of all blocks, after they first met.
  __device__ void count(unsigned sums) const {
    *peers.sums(rank) += sums;
  }

  // This rank's part of numbers 4 index to 4 index + 3.
  __device__ void send(int index, uint2 four) const {
    for (int step = 1; step <= ranks; ++step) {
      write_now(peers.row_line((rank + step) % ranks, round, rank, index), uint4{four.x, round, four.y, round});
    }
  }
  __device__ uint2 receive(int index) const {
    float sums[4];
    Wait wait(peers.patience());
    for (int from = 0; from < ranks; ++from) {
      const char* at = peers.row_line(rank, round, from, index);
      uint4 line = read_now(at);
      while ((line.y != round || line.w != round) && !wait.is_over()) {
        line = read_now(at);
      }
      const uint2 four = {line.x, line.z};
      const T* values = reinterpret_cast<const T*>(&four);
      for (int i = 0; i < 4; ++i) {
        const float value = static_cast<float>(values[i]);
        sums[i] = from == 0 ? value : sums[i] + value;
      }
    }
    uint2 four;
    for (int i = 0; i < 4; ++i) {
      reinterpret_cast<T*>(&four)[i] = static_cast<T>(sums[i]);
    }
    return four;
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
  volatile unsigned* rounds = peers.rounds(RANK, 0, blockIdx.x);
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

// The same of long messages.
constexpr const char* peer_long_source = R"(
  const mlxlm::Peers<RANKS, BLOCKS, THREADS, CHUNK> peers{table};
  size_t count = 1;
  for (int axis = 0; axis < x_ndim; ++axis) {
    count *= x_shape[axis];
  }
  const size_t pieces = count * sizeof(T) / 16;
  if (mlxlm::is_aligned<uint4>(x)) {
    mlxlm::join_chunks<GATHER, RANKS, RANK, true>(peers, x, pieces, joint);
  } else {
    mlxlm::join_chunks<GATHER, RANKS, RANK, false>(peers, x, pieces, joint);
  }
)";

} // namespace mlxlm::cuda
