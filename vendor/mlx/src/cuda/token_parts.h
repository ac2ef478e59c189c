// What kernels of one token consist of beside products and attention: meetings of blocks, norms, gates.
#pragma once

namespace mlxlm::cuda {

constexpr const char* token_header = R"(
namespace mlxlm_token {

using namespace mlxlm_stream;

// All workers of all blocks, which all are on the GPU at once: there is one on each multiprocessor. `arrived` counts up
// from launch to launch.
struct Meeting {
  unsigned long long* arrived;
  unsigned long long wanted;
  bool endless; // a block may wait for another process, however long that takes

  // Nobody has gone past this launch's first meeting yet, so whole rounds are those of earlier launches.
  __device__ explicit Meeting(unsigned long long* counter, bool endless = false) : arrived(counter), endless(endless) {
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(wanted) : "l"(counter) : "memory");
    wanted = wanted / gridDim.x * gridDim.x;
  }

  __device__ void operator()() {
    wanted += gridDim.x;
    join();
    if (threadIdx.x == 0) {
      asm volatile("red.release.gpu.global.add.u64 [%0], 1;" ::"l"(arrived) : "memory");
      unsigned long long seen = 0;
      for (unsigned tries = 0; seen < wanted; ++tries) {
        asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(seen) : "l"(arrived) : "memory");
        if (tries == 1u << 24 && !endless) {
          __trap(); // rather an error than a GPU that hangs
        }
      }
    }
    join();
  }
};

template <typename T>
__device__ float rounded(float value) {
  return static_cast<float>(static_cast<T>(value));
}

// What a gate lets through of a value, rounded where MLX's operations round.
template <typename T, bool GELU_BY_TANH>
__device__ float gated(float gate, float value) {
  const float act = GELU_BY_TANH
      ? 0.5f * gate * (1.0f + tanhf(0.7978845608028654f * (gate + 0.044715f * gate * gate * gate)))
      : gate * rounded<T>(1.0f / (1.0f + expf(-gate)));
  return rounded<T>(act) * value;
}

// A row that the workers of a block hold together, eight numbers by eight.
template <typename T, int NUMBERS>
struct HeldRow {
  static constexpr int vectors = NUMBERS / 8;
  static constexpr int each = (vectors + worker_threads - 1) / worker_threads;
  uint4 values[each];

  // `load(i)` gives numbers 8 i to 8 i + 7.
  template <typename Load>
  __device__ void load(int thread, Load load) {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      const int at = thread + i * worker_threads;
      values[i] = at < vectors ? load(at) : uint4{0, 0, 0, 0};
    }
  }

  template <typename Change>
  __device__ void change(int thread, Change change) {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      const int at = thread + i * worker_threads;
      if (at < vectors) {
        values[i] = change(at, values[i]);
      }
    }
  }

  // Its RMS norm in its place. `partial` has room for a number of each warp, which nobody reads any more.
  __device__ void norm(float* partial, const T* weight, float eps, int thread) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < each; ++i) {
      const T* eight = reinterpret_cast<const T*>(&values[i]);
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const float value = static_cast<float>(eight[k]);
        squares += value * value;
      }
    }
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
      squares += __shfl_xor_sync(0xffffffffu, squares, step);
    }
    if (thread % 32 == 0) {
      partial[thread / 32] = squares;
    }
    join();
    float total = 0;
#pragma unroll
    for (int w = 0; w < workers; ++w) {
      total += partial[w];
    }
    const float factor = rsqrtf(total / NUMBERS + eps);
    change(thread, [&](int at, uint4 vector) {
      T* eight = reinterpret_cast<T*>(&vector);
      const uint4 gains = reinterpret_cast<const uint4*>(weight)[at];
      const T* gain = reinterpret_cast<const T*>(&gains);
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const float scaled = rounded<T>(static_cast<float>(eight[k]) * factor);
        eight[k] = static_cast<T>(static_cast<float>(gain[k]) * scaled);
      }
      return vector;
    });
  }

  // Writes it, of which all blocks have the same, each a part.
  __device__ void leave(T* to, int thread) {
    change(thread, [&](int at, uint4 vector) {
      if (at % gridDim.x == blockIdx.x) {
        reinterpret_cast<uint4*>(to)[at] = vector;
      }
      return vector;
    });
  }
};

// A row that a block holds, as M's input.
template <typename T, typename M>
__device__ void enter(char* x, float* totals, HeldRow<T, M::inputs>& row, int thread) {
  row.change(thread, [&](int at, uint4 vector) {
    place<M>(x, at * 8, vector);
    return vector;
  });
  join();
  add_groups<T, M>(x, totals, thread);
  join();
}

// An RMS norm of a row, as M's input. `load(i)` gives values 8 i to 8 i + 7.
template <typename T, typename M, typename Load>
__device__ void enter_normed(
    char* x, float* totals, float* partial, const T* weight, float eps, int thread, Load load) {
  HeldRow<T, M::inputs> row;
  row.load(thread, load);
  row.norm(partial, weight, eps, thread);
  enter<T, M>(x, totals, row, thread);
}

// A row that other blocks have written, as M's input.
template <typename T, typename M>
__device__ void enter(char* x, float* totals, const T* from, int thread) {
  for (int at = thread; at < M::inputs / 8; at += worker_threads) {
    place<M>(x, at * 8, __ldcg(reinterpret_cast<const uint4*>(from) + at));
  }
  join();
  add_groups<T, M>(x, totals, thread);
  join();
}

template <typename T>
__device__ uint4 sum_of(uint4 a, uint4 b) {
  T* left = reinterpret_cast<T*>(&a);
  const T* right = reinterpret_cast<const T*>(&b);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    left[k] = static_cast<T>(static_cast<float>(left[k]) + static_cast<float>(right[k]));
  }
  return a;
}

// A tile's results, of which each lane has one, as this rank's part of a sum over ranks. By a whole warp.
template <typename T, int TILE, typename Sum>
__device__ void send_tile(const Sum& sum, int tile, int lane, float value) {
  const T half = static_cast<T>(value);
  const uint32_t own = *reinterpret_cast<const unsigned short*>(&half);
  const uint32_t two = own | __shfl_down_sync(0xffffffffu, own, 1) << 16;
  const uint32_t next = __shfl_down_sync(0xffffffffu, two, 2);
  if (lane < TILE && lane % 4 == 0) {
    sum.send((tile * TILE + lane) / 4, uint2{two, next});
  }
}

// The sums over ranks of a block's own tiles, four numbers a line.
template <int ROWS, int TILE, typename Sum, typename Take>
__device__ void receive_tiles(const Sum& sum, int thread, Take take) {
  constexpr int lines = TILE / 4;
  for (int i = thread;; i += worker_threads) {
    const int tile = blockIdx.x + i / lines * gridDim.x;
    if (tile >= ROWS / TILE) {
      break;
    }
    const int line = tile * lines + i % lines;
    take(line, sum.receive(line));
  }
}

} // namespace mlxlm_token
)";

} // namespace mlxlm::cuda
