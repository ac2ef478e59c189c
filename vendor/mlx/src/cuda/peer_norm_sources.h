// Kernels that sum over ranks what a block of a model gives, add it to the stream, and norm that, row by row.
#pragma once

#include "cuda/overlap_sources.h"

namespace mlxlm::cuda {

// Goes with peer_header.
constexpr const char* peer_norm_header = R"(
namespace mlxlm {

// Four numbers of a row that begins at `first`: as they are, or the sum of PARTS in float32, which are `apart` from each other.
template <int PARTS, class T, class P>
__device__ uint2 own_piece(const P* part, size_t apart, size_t first, int line) {
  if constexpr (PARTS == 0) {
    return piece_of<uint2>(part + first, line);
  } else {
    float sums[4] = {};
#pragma unroll
    for (int i = 0; i < PARTS; ++i) {
      const float4 four = reinterpret_cast<const float4*>(part + i * apart + first)[line];
      sums[0] += four.x;
      sums[1] += four.y;
      sums[2] += four.z;
      sums[3] += four.w;
    }
    uint2 piece;
    T* numbers = reinterpret_cast<T*>(&piece);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      numbers[i] = static_cast<T>(sums[i]);
    }
    return piece;
  }
}

// Some of a row's pieces: those of a thread among GROUP, TURNS of them at most.
template <int GROUP, int TURNS, class Piece>
struct Pieces {
  Piece own[TURNS];

  // Calls take(turn, index) for each that there is.
  template <class Take>
  static __device__ void each(int pieces, Take take) {
#pragma unroll
    for (int turn = 0; turn < TURNS; ++turn) {
      const int index = turn * GROUP + threadIdx.x % GROUP;
      if (index < pieces) {
        take(turn, index);
      }
    }
  }
  template <bool ALIGNED, class T>
  __device__ void read(const T* row, int pieces) {
    each(pieces, [&](int turn, int index) { own[turn] = piece_of<Piece, ALIGNED>(row, index); });
  }
};

// x + delta and its RMS norm, of a row of so many pieces whose GROUP threads have read what they need; 0 pieces for threads without a
// row. All threads of a block come here.
template <int DIMS, int GROUP, int TURNS, class Piece, class T>
__device__ void add_and_norm(
    const Pieces<GROUP, TURNS, Piece>& deltas, Pieces<GROUP, TURNS, Piece>& values,
    const Pieces<GROUP, TURNS, Piece>& gains, T* sum, T* normed, int pieces, float eps) {
  constexpr int EACH = sizeof(Piece) / sizeof(T);
  constexpr int WARPS = GROUP / 32;
  __shared__ float partial[32];
  float squares = 0;
  values.each(pieces, [&](int turn, int index) {
    T* stream = reinterpret_cast<T*>(&values.own[turn]);
    const T* delta = reinterpret_cast<const T*>(&deltas.own[turn]);
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      stream[i] = static_cast<T>(static_cast<float>(stream[i]) + static_cast<float>(delta[i]));
      squares += static_cast<float>(stream[i]) * static_cast<float>(stream[i]);
    }
    reinterpret_cast<Piece*>(sum)[index] = values.own[turn];
  });
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
    squares += __shfl_xor_sync(0xffffffffu, squares, step);
  }
  if (threadIdx.x % 32 == 0) {
    partial[threadIdx.x / 32] = squares;
  }
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < WARPS; ++warp) {
    total += partial[threadIdx.x / GROUP * WARPS + warp];
  }
  __syncthreads();
  const float factor = rsqrtf(total / DIMS + eps);
  values.each(pieces, [&](int turn, int index) {
    T* value = reinterpret_cast<T*>(&values.own[turn]);
    const T* gain = reinterpret_cast<const T*>(&gains.own[turn]);
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const T scaled = static_cast<T>(static_cast<float>(value[i]) * factor);
      value[i] = static_cast<T>(static_cast<float>(gain[i]) * static_cast<float>(scaled));
    }
    reinterpret_cast<Piece*>(normed)[index] = values.own[turn];
  });
}

// How many of a block's threads share a row of so many pieces: so few that each has at least two, but a warp.
constexpr __device__ int threads_of_row(int threads, int pieces) {
  int group = threads;
  while (group > 32 && pieces <= group) {
    group /= 2;
  }
  return group;
}

// The norm of x and all ranks' parts, in chunks of whole rows.
template <int DIMS, int RANKS, int RANK, bool ALIGNED, int BLOCKS, int THREADS, int CHUNK, class T>
__device__ void add_and_norm_chunks(
    const Peers<RANKS, BLOCKS, THREADS, CHUNK>& peers, const T* x, const T* part, size_t pieces, const T* weight, T* sum,
    T* normed, float eps) {
  constexpr int PIECES = DIMS / 8;
  constexpr int GROUP = threads_of_row(THREADS, PIECES);
  constexpr int TURNS = (PIECES + GROUP - 1) / GROUP;
  using Own = Pieces<GROUP, TURNS, uint4>;
  exchange_chunks<RANKS, RANK, ALIGNED>(peers, part, pieces, PIECES, [&](size_t first, int length, unsigned round) {
    for (int rows = 0; rows < length; rows += THREADS / GROUP * PIECES) {
      const int row = rows + threadIdx.x / GROUP * PIECES;
      const int there = row < length ? PIECES : 0;
      const size_t begin = (first + row) * 8;
      Own deltas, values, gains;
      deltas.each(there, [&](int turn, int index) {
        T* none = nullptr;
        deltas.own[turn] = chunk_piece<false, RANKS, RANK, ALIGNED>(peers, part, first, row + index, round, none, 0).sum();
      });
      values.template read<ALIGNED>(x + begin, there);
      gains.template read<ALIGNED>(weight, there);
      add_and_norm<DIMS>(deltas, values, gains, sum + begin, normed + begin, there, eps);
    }
  });
}

} // namespace mlxlm
)";

// Inputs x (rows, DIMS), part (rows, DIMS): this rank's, or PARTS of that in float32, (PARTS, rows, DIMS), weight (DIMS), table and before
// as those of peer_short_source. Outputs sum, normed (rows, DIMS). A block a row, with channels of its own.
constexpr const char* peer_norm_short_source = MLXLM_BEHIND_LAUNCH R"(
  const mlxlm::Peers<RANKS, BLOCKS, THREADS, CHUNK> peers{table};
  constexpr int LINES = DIMS / 4;
  constexpr int CHANNELS = (LINES + THREADS - 1) / THREADS;
  using Own = mlxlm::Pieces<THREADS, CHANNELS, uint2>;
  const size_t first = static_cast<size_t>(blockIdx.x) * DIMS;
  const int channel = blockIdx.x * CHANNELS;
  const size_t apart = static_cast<size_t>(gridDim.x) * DIMS;
  unsigned round[CHANNELS];
#pragma unroll
  for (int turn = 0; turn < CHANNELS; ++turn) {
    round[turn] = *peers.rounds(RANK, 0, channel + turn) + 1;
  }
  // All that is in this GPU's memory is read at once, ahead of the first message.
  Own deltas, values, gains;
  deltas.each(LINES, [&](int turn, int line) { deltas.own[turn] = mlxlm::own_piece<PARTS, T>(part, apart, first, line); });
  values.template read<false>(x + first, LINES);
  gains.template read<false>(weight, LINES);
  auto place = [&](int at, int turn, int from) {
    return peers.line(at, round[turn], from, (channel + turn) * THREADS + threadIdx.x);
  };
  deltas.each(LINES, [&](int turn, int) {
    const uint2 own = deltas.own[turn];
    for (int step = 1; step < RANKS; ++step) {
      mlxlm::write_now(place((RANK + step) % RANKS, turn, RANK), uint4{own.x, round[turn], own.y, round[turn]});
    }
  });
  mlxlm::Wait wait(peers.patience());
  deltas.each(LINES, [&](int turn, int) {
    mlxlm::Joint<false, uint2, T> joined;
    for (int rank = 0; rank < RANKS; ++rank) {
      uint2 piece = deltas.own[turn];
      if (rank != RANK) {
        const char* at = place(RANK, turn, rank);
        uint4 line = mlxlm::read_now(at);
        while ((line.y != round[turn] || line.w != round[turn]) && !wait.is_over()) {
          line = mlxlm::read_now(at);
        }
        piece = uint2{line.x, line.z};
      }
      joined.take(rank, piece, nullptr, 0, 0);
    }
    deltas.own[turn] = joined.sum();
  });
  mlxlm::add_and_norm<DIMS>(deltas, values, gains, sum + first, normed + first, LINES, __int_as_float(EPS));
  // All threads have read the rounds: there were barriers.
  if (threadIdx.x == 0) {
#pragma unroll
    for (int turn = 0; turn < CHANNELS; ++turn) {
      *peers.rounds(RANK, 0, channel + turn) = round[turn];
    }
  }
)";

// The same of more rows, in chunks.
constexpr const char* peer_norm_long_source = R"(
  const mlxlm::Peers<RANKS, BLOCKS, THREADS, CHUNK> peers{table};
  size_t count = 1;
  for (int axis = 0; axis < part_ndim; ++axis) {
    count *= part_shape[axis];
  }
  const float eps = __int_as_float(EPS);
  if (mlxlm::is_aligned<uint4>(x) && mlxlm::is_aligned<uint4>(part) && mlxlm::is_aligned<uint4>(weight)) {
    mlxlm::add_and_norm_chunks<DIMS, RANKS, RANK, true>(peers, x, part, count / 8, weight, sum, normed, eps);
  } else {
    mlxlm::add_and_norm_chunks<DIMS, RANKS, RANK, false>(peers, x, part, count / 8, weight, sum, normed, eps);
  }
)";

} // namespace mlxlm::cuda
