// How a block attends: heads turned, some queries of one head of keys, and the results of parts of the keys put together. For blocks
// of 256 threads that meet by `join`. cuda/token_parts.h comes ahead of it.
#pragma once

namespace mlxlm::cuda {

constexpr const char* attention_header = R"(
namespace mlxlm_token {

// What eight lanes' worth of a query sees of some keys: a running softmax with weights by powers of two.
template <int HEADS>
struct Attended {
  float most[HEADS];
  float weight[HEADS];
  float sums[HEADS][8];

  __device__ Attended() {
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
      most[h] = -1e30f;
      weight[h] = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sums[h][i] = 0;
      }
    }
  }

  // scores and there of COUNT keys, `value(u, numbers)` gives the values of one.
  template <int COUNT, typename Value>
  __device__ void add(float (&scores)[COUNT][HEADS], const bool (&there)[COUNT], Value value) {
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
      float highest = most[h];
#pragma unroll
      for (int u = 0; u < COUNT; ++u) {
        highest = there[u] ? fmaxf(highest, scores[u][h]) : highest;
      }
      const float kept = exp2f(most[h] - highest);
      most[h] = highest;
      weight[h] *= kept;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sums[h][i] *= kept;
      }
#pragma unroll
      for (int u = 0; u < COUNT; ++u) {
        scores[u][h] = there[u] ? exp2f(scores[u][h] - highest) : 0.0f;
        weight[h] += scores[u][h];
      }
    }
#pragma unroll
    for (int u = 0; u < COUNT; ++u) {
      float numbers[8];
      value(u, numbers);
#pragma unroll
      for (int h = 0; h < HEADS; ++h) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          sums[h][i] = fmaf(scores[u][h], numbers[i], sums[h][i]);
        }
      }
    }
  }

  // Those of the lanes `step` apart together.
  __device__ void merge(int step) {
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
      const float other = __shfl_xor_sync(0xffffffffu, most[h], step);
      const float highest = fmaxf(most[h], other);
      const float mine = exp2f(most[h] - highest);
      const float theirs = exp2f(other - highest);
      most[h] = highest;
      weight[h] = weight[h] * mine + __shfl_xor_sync(0xffffffffu, weight[h], step) * theirs;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sums[h][i] = sums[h][i] * mine + __shfl_xor_sync(0xffffffffu, sums[h][i], step) * theirs;
      }
    }
  }
};

template <typename T>
__device__ void floats_of(uint4 vector, float (&values)[8]) {
  const T* eight = reinterpret_cast<const T*>(&vector);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    values[i] = static_cast<float>(eight[i]);
  }
}

// Where keys and values lie: as they are counted, or in a ring, where what comes behind the last row begins anew.
struct InOrder {
  __device__ int operator()(int at) const {
    return at;
  }
};
struct InRing {
  int rows;
  __device__ int operator()(int at) const {
    return at < rows ? at : at - rows;
  }
};

// QUERIES of one head of keys, their floats given by their bits.
template <typename T, int DIMS, int QUERIES, int ROTATED, int EPS, int ROPE_SCALE, int LOG2_BASE, int SCORE_SCALE>
struct Heads {
  static constexpr int part = DIMS + 4; // of a result: sums, the greatest score, the weight
  static constexpr int turned = (QUERIES + 2) * DIMS;
  static constexpr int merged = workers * QUERIES * part;

  // Number i of a head, which another multiprocessor may just have written.
  static __device__ float written(const T* head, int i) {
    const unsigned short bits = __ldcg(reinterpret_cast<const unsigned short*>(head) + i);
    return static_cast<float>(*reinterpret_cast<const T*>(&bits));
  }

  // One head, whose numbers `number(i)` gives, normed and turned by half of its features.
  template <bool NORMED, bool BY_FREQS, typename Number>
  static __device__ void turn(
      float* to, Number number, bool turns, const T* gains, const float* freqs, int position, int lane) {
    constexpr int pairs = DIMS / 64; // of a lane
    float first[pairs];
    float second[pairs];
    int at[pairs];
    int beside[pairs];
    float squares = 0;
#pragma unroll
    for (int i = 0; i < pairs; ++i) {
      const int pair = i * 32 + lane;
      const bool moves = pair < ROTATED / 2;
      at[i] = moves ? pair : ROTATED + 2 * (pair - ROTATED / 2);
      beside[i] = moves ? pair + ROTATED / 2 : at[i] + 1;
      first[i] = number(at[i]);
      second[i] = number(beside[i]);
      squares += first[i] * first[i] + second[i] * second[i];
    }
    if constexpr (NORMED) {
      if (turns) {
#pragma unroll
        for (int step = 16; step > 0; step >>= 1) {
          squares += __shfl_xor_sync(0xffffffffu, squares, step);
        }
        const float factor = rsqrtf(squares / DIMS + __int_as_float(EPS));
#pragma unroll
        for (int i = 0; i < pairs; ++i) {
          first[i] = rounded<T>(static_cast<float>(gains[at[i]]) * rounded<T>(first[i] * factor));
          second[i] = rounded<T>(static_cast<float>(gains[beside[i]]) * rounded<T>(second[i] * factor));
        }
      }
    }
#pragma unroll
    for (int i = 0; i < pairs; ++i) {
      const int pair = i * 32 + lane;
      if (turns && pair < ROTATED / 2) {
        float inverse;
        if constexpr (BY_FREQS) {
          inverse = 1.0f / freqs[pair];
        } else {
          inverse = exp2f(-(static_cast<float>(pair) / (ROTATED / 2)) * __int_as_float(LOG2_BASE));
        }
        float sine, cosine;
        sincosf(__int_as_float(ROPE_SCALE) * static_cast<float>(position) * inverse, &sine, &cosine);
        const float a = first[i];
        first[i] = rounded<T>(a * cosine - second[i] * sine);
        second[i] = rounded<T>(a * sine + second[i] * cosine);
      }
      to[at[i]] = first[i];
      to[beside[i]] = second[i];
    }
  }

  // What will be attended to, into the cache that all multiprocessors share.
  template <typename Place>
  static __device__ void prefetch(const T* from, int64_t stride, int begin, int end, Place place, int thread) {
    constexpr int lines = DIMS / 64; // of a key
    for (int at = begin * lines + thread; at < end * lines; at += worker_threads) {
      asm volatile("prefetch.global.L2 [%0];" ::"l"(from + place(at / lines) * stride + at % lines * 64));
    }
  }

  // What the queries see of rows `begin` to `end` of keys and values but `without`, and of the new ones where the block has them. `heads`
  // has the queries, the new key and the new value. Each warp leaves a part for each query in `parts`. A thread reads from DEPTH keys ahead.
  template <int DEPTH, typename Place>
  static __device__ void see(
      float* parts, const float* heads, const T* keys, const T* values, int64_t key_stride, int64_t value_stride, int begin,
      int end, int without, Place place, bool newest, int warp, int lane) {
    constexpr int lanes = DIMS / 8; // of a key
    constexpr int abreast = 32 / lanes; // keys of a warp at once
    const int own = lane % lanes * 8;
    float query[QUERIES][8];
#pragma unroll
    for (int h = 0; h < QUERIES; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        query[h][i] = heads[h * DIMS + own + i] * (__int_as_float(SCORE_SCALE) * 1.4426950408889634f);
      }
    }
    auto score = [&](const float (&key)[8], float (&scores)[QUERIES]) {
#pragma unroll
      for (int h = 0; h < QUERIES; ++h) {
        scores[h] = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          scores[h] = fmaf(query[h][i], key[i], scores[h]);
        }
#pragma unroll
        for (int step = lanes / 2; step > 0; step >>= 1) {
          scores[h] += __shfl_xor_sync(0xffffffffu, scores[h], step);
        }
      }
    };
    Attended<QUERIES> seen;
    uint4 key[2][DEPTH];
    uint4 value[2][DEPTH];
    auto read = [&](int first, uint4 (&k)[DEPTH], uint4 (&v)[DEPTH]) {
#pragma unroll
      for (int u = 0; u < DEPTH; ++u) {
        const int at = place(min(first + u * abreast + lane / lanes, end - 1));
        k[u] = __ldcg(reinterpret_cast<const uint4*>(keys + at * key_stride + own));
        v[u] = __ldcg(reinterpret_cast<const uint4*>(values + at * value_stride + own));
      }
    };
    auto weigh = [&](int first, const uint4 (&k)[DEPTH], const uint4 (&v)[DEPTH]) {
      float scores[DEPTH][QUERIES];
      bool there[DEPTH];
#pragma unroll
      for (int u = 0; u < DEPTH; ++u) {
        const int at = first + u * abreast + lane / lanes;
        there[u] = at < end && at != without;
        float numbers[8];
        floats_of<T>(k[u], numbers);
        score(numbers, scores[u]);
      }
      seen.add(scores, there, [&](int u, float (&numbers)[8]) { floats_of<T>(v[u], numbers); });
    };
    constexpr int stride = workers * abreast * DEPTH;
    int first = begin + warp * abreast * DEPTH;
    if (first < end) {
      read(first, key[0], value[0]);
    }
    for (; first < end; first += 2 * stride) {
      if (first + stride < end) {
        read(first + stride, key[1], value[1]);
      }
      weigh(first, key[0], value[0]);
      if (first + stride < end) {
        if (first + 2 * stride < end) {
          read(first + 2 * stride, key[0], value[0]);
        }
        weigh(first + stride, key[1], value[1]);
      }
    }
    if (newest && warp == 0) {
      float scores[1][QUERIES];
      float numbers[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        numbers[i] = heads[QUERIES * DIMS + own + i];
      }
      score(numbers, scores[0]);
      const bool there[1] = {lane < lanes};
      seen.add(scores, there, [&](int, float (&weighed)[8]) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          weighed[i] = heads[(QUERIES + 1) * DIMS + own + i];
        }
      });
    }
#pragma unroll
    for (int step = lanes; step < 32; step *= 2) {
      seen.merge(step);
    }
    if (lane < lanes) {
#pragma unroll
      for (int h = 0; h < QUERIES; ++h) {
        float* to = parts + (warp * QUERIES + h) * part;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          to[own + i] = seen.sums[h][i];
        }
        if (lane == 0) {
          to[DIMS] = seen.most[h];
          to[DIMS + 1] = seen.weight[h];
        }
      }
    }
  }

  // Of `count` parts, number i of all queries' results: its sum, and the highest score and the weight that belong to it.
  template <typename Read>
  static __device__ float together(Read read, int count, int i, float& highest, float& weight) {
    constexpr int apart = QUERIES * part;
    const int h = i / DIMS;
    highest = -1e30f;
    for (int p = 0; p < count; ++p) {
      highest = fmaxf(highest, read(p * apart + h * part + DIMS));
    }
    float sum = 0;
    weight = 0;
    for (int p = 0; p < count; ++p) {
      const float factor = exp2f(read(p * apart + h * part + DIMS) - highest);
      weight += factor * read(p * apart + h * part + DIMS + 1);
      sum += factor * read(p * apart + h * part + i % DIMS);
    }
    return sum;
  }

  // Leaves number i of a result among the parts of blocks.
  static __device__ void leave(float* parts, int i, float sum, float highest, float weight) {
    float* to = parts + i / DIMS * part;
    to[i % DIMS] = sum;
    if (i % DIMS == 0) {
      to[DIMS] = highest;
      to[DIMS + 1] = weight;
    }
  }
};

} // namespace mlxlm_token
)";

} // namespace mlxlm::cuda
