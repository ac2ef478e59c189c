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

// A row of which each thread has some pieces: x + delta and its RMS norm. By a block of THREADS.
template <int THREADS, int TURNS, class Piece, class T>
__device__ void add_and_norm(
    const Piece (&deltas)[TURNS], const T* x, const T* weight, T* sum, T* normed, int pieces, float eps) {
  constexpr int EACH = sizeof(Piece) / sizeof(T);
  __shared__ float partial[THREADS / 32];
  Piece values[TURNS];
  float squares = 0;
#pragma unroll
  for (int turn = 0; turn < TURNS; ++turn) {
    const int at = turn * THREADS + threadIdx.x;
    if (at < pieces) {
      values[turn] = piece_of<Piece>(x, at);
      T* stream = reinterpret_cast<T*>(&values[turn]);
      const T* delta = reinterpret_cast<const T*>(&deltas[turn]);
#pragma unroll
      for (int i = 0; i < EACH; ++i) {
        stream[i] = static_cast<T>(static_cast<float>(stream[i]) + static_cast<float>(delta[i]));
        squares += static_cast<float>(stream[i]) * static_cast<float>(stream[i]);
      }
      reinterpret_cast<Piece*>(sum)[at] = values[turn];
    }
  }
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
  for (int warp = 0; warp < THREADS / 32; ++warp) {
    total += partial[warp];
  }
  __syncthreads();
  const float factor = rsqrtf(total / (pieces * EACH) + eps);
#pragma unroll
  for (int turn = 0; turn < TURNS; ++turn) {
    const int at = turn * THREADS + threadIdx.x;
    if (at < pieces) {
      const Piece gains = piece_of<Piece>(weight, at);
      const T* gain = reinterpret_cast<const T*>(&gains);
      T* value = reinterpret_cast<T*>(&values[turn]);
#pragma unroll
      for (int i = 0; i < EACH; ++i) {
        const T scaled = static_cast<T>(static_cast<float>(value[i]) * factor);
        value[i] = static_cast<T>(static_cast<float>(gain[i]) * static_cast<float>(scaled));
      }
      reinterpret_cast<Piece*>(normed)[at] = values[turn];
    }
  }
}

} // namespace mlxlm
)";

// Inputs x (rows, DIMS), part (rows, DIMS): this rank's, or PARTS of that in float32, (PARTS, rows, DIMS) weight (DIMS), table, before: as those of peer_short_source. Outputs sum, normed
// (rows, DIMS). A block a row, with channels of its own.
constexpr const char* peer_norm_short_source = MLXLM_BEHIND_LAUNCH R"(
  const mlxlm::Peers<RANKS, BLOCKS, THREADS, CHUNK> peers{table};
  constexpr int LINES = DIMS / 4;
  constexpr int CHANNELS = (LINES + THREADS - 1) / THREADS;
  const size_t first = static_cast<size_t>(blockIdx.x) * DIMS;
  uint2 parts[CHANNELS];
  unsigned round[CHANNELS];
#pragma unroll
  for (int turn = 0; turn < CHANNELS; ++turn) {
    const int line = turn * THREADS + threadIdx.x;
    const int channel = blockIdx.x * CHANNELS + turn;
    round[turn] = *peers.rounds(RANK, 0, channel) + 1;
    if (line < LINES) {
      const uint2 own = mlxlm::own_piece<PARTS, T>(part, static_cast<size_t>(gridDim.x) * DIMS, first, line);
      for (int step = 1; step < RANKS; ++step) {
        mlxlm::write_now(
            peers.line((RANK + step) % RANKS, round[turn], RANK, channel * THREADS + threadIdx.x),
            uint4{own.x, round[turn], own.y, round[turn]});
      }
      parts[turn] = own;
    }
  }
  mlxlm::Wait wait(peers.patience());
#pragma unroll
  for (int turn = 0; turn < CHANNELS; ++turn) {
    const int line = turn * THREADS + threadIdx.x;
    const int channel = blockIdx.x * CHANNELS + turn;
    if (line < LINES) {
      mlxlm::Joint<false, uint2, T> joined;
      for (int rank = 0; rank < RANKS; ++rank) {
        uint2 piece = parts[turn];
        if (rank != RANK) {
          const char* at = peers.line(RANK, round[turn], rank, channel * THREADS + threadIdx.x);
          uint4 line = mlxlm::read_now(at);
          while ((line.y != round[turn] || line.w != round[turn]) && !wait.is_over()) {
            line = mlxlm::read_now(at);
          }
          piece = uint2{line.x, line.z};
        }
        joined.take(rank, piece, nullptr, 0, 0);
      }
      parts[turn] = joined.sum();
    }
  }
  mlxlm::add_and_norm<THREADS>(
      parts, x + first, weight, sum + first, normed + first, LINES, __int_as_float(EPS));
  // All threads have read the rounds: there were barriers.
  if (threadIdx.x == 0) {
#pragma unroll
    for (int turn = 0; turn < CHANNELS; ++turn) {
      *peers.rounds(RANK, 0, blockIdx.x * CHANNELS + turn) = round[turn];
    }
  }
)";

// The same of more rows, in chunks.
constexpr const char* peer_norm_long_source = R"(
  const mlxlm::Peers<RANKS, BLOCKS, THREADS, CHUNK> peers{table};
  constexpr int PIECES = DIMS / 8;
  constexpr int TURNS = (PIECES + THREADS - 1) / THREADS;
  size_t count = 1;
  for (int axis = 0; axis < part_ndim; ++axis) {
    count *= part_shape[axis];
  }
  mlxlm::exchange_chunks<RANKS, RANK>(peers, part, count / 8, PIECES, [&](size_t first, size_t length, unsigned round) {
    for (size_t row = 0; row < length; row += PIECES) {
      uint4 parts[TURNS];
#pragma unroll
      for (int turn = 0; turn < TURNS; ++turn) {
        const int at = turn * THREADS + threadIdx.x;
        if (at < PIECES) {
          T* none = nullptr;
          parts[turn] = mlxlm::chunk_piece<false, RANKS, RANK>(peers, part, first, row + at, round, none, 0).sum();
        }
      }
      const size_t begin = (first + row) * 8;
      mlxlm::add_and_norm<THREADS>(
          parts, x + begin, weight, sum + begin, normed + begin, PIECES, __int_as_float(EPS));
    }
  });
)";

} // namespace mlxlm::cuda
