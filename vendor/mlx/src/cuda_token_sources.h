// One token through a whole layer as one CUDA kernel. cuda_stream_sources.h has the products, cuda_token_parts.h the rest.
#pragma once

namespace mlxlm::cuda {

// WHOLE: a layer, else its attention alone, of a row that is normed already.
// Inputs, in this order, those in brackets where the layer has them: x, [delta], [first_norm], joint with [its scales and
// biases, a bias], last likewise, keys, values (1, KV_HEADS, rows, HEAD_DIMS), sizes (2: rows in use, position),
// [query_norm, key_norm], [freqs], [second_norm, gates, down], state (1 + HEADS / HEADS_A_BLOCK).
// Outputs [sum], out (DIMS); room: what blocks hand each other; parts: attention to parts of the keys.
constexpr const char* token_layer_source = R"(
  using namespace mlxlm_token;
  constexpr int D = HEAD_DIMS;
  constexpr int WIDTH = HEADS * D;
  constexpr int G = HEADS_A_BLOCK; // queries of one head of keys that a block takes
  constexpr int TEAMS = HEADS / G;
  constexpr int JOINT_ROWS = WIDTH + 2 * KV_HEADS * D;
  using Joint = Layout<T, JOINT_BITS, JOINT_GROUP, DIMS, JOINT_TILE, JOINT_CUTS>;
  using Last = Layout<T, LAST_BITS, LAST_GROUP, WIDTH, LAST_TILE, LAST_CUTS>;
  using Slots = Ring<SLOTS, SLOT_BYTES>;
  static_assert(Joint::slot_bytes <= SLOT_BYTES && Last::slot_bytes <= SLOT_BYTES);
#if WHOLE
  using Gates = Layout<T, GATES_BITS, GATES_GROUP, DIMS, GATES_TILE, GATES_CUTS>;
  using Down = Layout<T, DOWN_BITS, DOWN_GROUP, INNER, DOWN_TILE, DOWN_CUTS>;
  static_assert(Gates::slot_bytes <= SLOT_BYTES && Down::slot_bytes <= SLOT_BYTES);
#endif
  extern __shared__ __align__(128) char memory[];
  float* totals = reinterpret_cast<float*>(memory + Slots::bytes);
  float* partial = totals + GROUPS;
  char* area = reinterpret_cast<char*>(partial + 2 * workers * 16);
  Slots ring(memory);
  const int thread = threadIdx.x;
  const int warp = thread / 32;
  const int lane = thread % 32;
  if (thread == 0) {
    ring.initialize();
  }
  __syncthreads();
  const Matrix<T, Joint> joint_matrix = {joint, JOINT_SCALES, JOINT_BIASES, JOINT_ROWS};
  const Matrix<T, Last> last_matrix = {last, LAST_SCALES, LAST_BIASES, DIMS};
#if WHOLE
  const Matrix<T, Gates, true> gates_matrix = {gates, GATES_SCALES, GATES_BIASES, 2 * INNER};
  const Matrix<T, Down> down_matrix = {down, DOWN_SCALES, DOWN_BIASES, DIMS};
#endif
  if (warp == workers) {
    feed<Joint>(ring, joint_matrix, lane);
    feed<Last>(ring, last_matrix, lane);
#if WHOLE
    feed<Gates>(ring, gates_matrix, lane);
    feed<Down>(ring, down_matrix, lane);
#endif
    return;
  }

  auto* counts = const_cast<unsigned long long*>(reinterpret_cast<const unsigned long long*>(state));
  Meeting meet(counts);
  const int used = sizes[0];
  const int splits = max(1, min(static_cast<int>(gridDim.x) / TEAMS, (used + 255) / 256));
  const bool attends = blockIdx.x < TEAMS * splits;
  const int team = blockIdx.x / splits;
  const int split = blockIdx.x % splits;
  const int head = team * KV_HEADS / TEAMS;
  const bool newest = split == splits - 1;
  const int share = (used + splits - 1) / splits;
  const int begin = split * share;
  const int end = min(used, begin + share);
  T* all_keys = const_cast<T*>(keys) + head * keys_strides[1];
  T* all_values = const_cast<T*>(values) + head * values_strides[1];
  const int64_t key_stride = keys_strides[2];
  const int64_t value_stride = values_strides[2];
  if (attends) {
    // What will be attended to, into the cache that all multiprocessors share.
    constexpr int lines = D / 64; // of a key
    for (int at = begin * lines + thread; at < end * lines; at += worker_threads) {
      asm volatile("prefetch.global.L2 [%0];" ::"l"(all_keys + at / lines * key_stride + at % lines * 64));
      asm volatile("prefetch.global.L2 [%0];" ::"l"(all_values + at / lines * value_stride + at % lines * 64));
    }
  }

  Scales<T, Joint> joint_scale;
  joint_scale.begin(joint_matrix, warp, lane);
  T* heads = room;
  T* attended = heads + JOINT_ROWS;
#if WHOLE
  auto entering = [&](int at) {
    const uint4 values = reinterpret_cast<const uint4*>(x)[at];
#if ADDS
    return sum_of<T>(values, reinterpret_cast<const uint4*>(delta)[at]);
#else
    return values;
#endif
  };

  enter_normed<T, Joint>(area, totals, partial, first_norm, __int_as_float(FIRST_EPS), thread, entering);
#else
  enter<T, Joint>(area, totals, x, thread);
#endif
  multiply<Joint>(ring, joint_matrix, joint_scale, area, totals, partial, warp, lane, [&](int tile, int at, float value) {
    if (at < JOINT_TILE) {
      const int to = tile * JOINT_TILE + at;
#if JOINT_BIASED
      value = rounded<T>(value) + static_cast<float>(joint_bias[to]);
#endif
      heads[to] = static_cast<T>(value);
    }
  });
  meet();

  if (attends) {
    float* rotated = reinterpret_cast<float*>(area); // G queries, the new key, the new value
    float* merged = rotated + (G + 2) * D;
    for (int h = warp; h < G + (newest ? 2 : 0); h += workers) {
      const int from = h < G ? team * G + h : h == G ? HEADS + head : HEADS + KV_HEADS + head;
      const bool turns = h <= G;
      float first[D / 64];
      float second[D / 64];
      int at[D / 64];
      int beside[D / 64];
      float squares = 0;
#pragma unroll
      for (int i = 0; i < D / 64; ++i) {
        const int pair = i * 32 + lane;
        const bool turned = pair < ROTATED / 2;
        at[i] = turned ? pair : ROTATED + 2 * (pair - ROTATED / 2);
        beside[i] = turned ? pair + ROTATED / 2 : at[i] + 1;
        const unsigned short a = __ldcg(reinterpret_cast<const unsigned short*>(heads) + from * D + at[i]);
        const unsigned short b = __ldcg(reinterpret_cast<const unsigned short*>(heads) + from * D + beside[i]);
        first[i] = static_cast<float>(*reinterpret_cast<const T*>(&a));
        second[i] = static_cast<float>(*reinterpret_cast<const T*>(&b));
        squares += first[i] * first[i] + second[i] * second[i];
      }
#if NORMS
      if (turns) {
#pragma unroll
        for (int step = 16; step > 0; step >>= 1) {
          squares += __shfl_xor_sync(0xffffffffu, squares, step);
        }
        const float factor = rsqrtf(squares / D + __int_as_float(HEAD_EPS));
        const T* gains = h < G ? query_norm : key_norm;
#pragma unroll
        for (int i = 0; i < D / 64; ++i) {
          first[i] = rounded<T>(static_cast<float>(gains[at[i]]) * rounded<T>(first[i] * factor));
          second[i] = rounded<T>(static_cast<float>(gains[beside[i]]) * rounded<T>(second[i] * factor));
        }
      }
#endif
#pragma unroll
      for (int i = 0; i < D / 64; ++i) {
        const int pair = i * 32 + lane;
        if (turns && pair < ROTATED / 2) {
#if FREQS
          const float inverse = 1.0f / freqs[pair];
#else
          const float inverse = exp2f(-(static_cast<float>(pair) / (ROTATED / 2)) * __int_as_float(LOG2_BASE));
#endif
          float sine, cosine;
          sincosf(__int_as_float(ROPE_SCALE) * static_cast<float>(sizes[1]) * inverse, &sine, &cosine);
          const float a = first[i];
          first[i] = rounded<T>(a * cosine - second[i] * sine);
          second[i] = rounded<T>(a * sine + second[i] * cosine);
        }
        rotated[h * D + at[i]] = first[i];
        rotated[h * D + beside[i]] = second[i];
      }
    }
    join();
    if (newest && team % (TEAMS / KV_HEADS) == 0) {
      for (int i = thread; i < D; i += worker_threads) {
        all_keys[used * key_stride + i] = static_cast<T>(rotated[G * D + i]);
        all_values[used * value_stride + i] = static_cast<T>(rotated[(G + 1) * D + i]);
      }
    }

    constexpr int lanes = D / 8; // of a key
    constexpr int abreast = 32 / lanes; // keys of a warp at once
    constexpr int depth = 2;
    const int part = lane % lanes * 8;
    float query[G][8];
#pragma unroll
    for (int h = 0; h < G; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        query[h][i] = rotated[h * D + part + i] * (__int_as_float(SCORE_SCALE) * 1.4426950408889634f);
      }
    }
    auto score = [&](const float (&key)[8], float (&scores)[G]) {
#pragma unroll
      for (int h = 0; h < G; ++h) {
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
    Attended<G> seen;
    uint4 key[2][depth];
    uint4 value[2][depth];
    auto read = [&](int first, uint4 (&k)[depth], uint4 (&v)[depth]) {
#pragma unroll
      for (int u = 0; u < depth; ++u) {
        const int at = min(first + u * abreast + lane / lanes, end - 1);
        k[u] = __ldcg(reinterpret_cast<const uint4*>(all_keys + at * key_stride + part));
        v[u] = __ldcg(reinterpret_cast<const uint4*>(all_values + at * value_stride + part));
      }
    };
    auto weigh = [&](int first, const uint4 (&k)[depth], const uint4 (&v)[depth]) {
      float scores[depth][G];
      bool there[depth];
#pragma unroll
      for (int u = 0; u < depth; ++u) {
        there[u] = first + u * abreast + lane / lanes < end;
        float numbers[8];
        floats_of<T>(k[u], numbers);
        score(numbers, scores[u]);
      }
      seen.add(scores, there, [&](int u, float (&numbers)[8]) { floats_of<T>(v[u], numbers); });
    };
    constexpr int stride = workers * abreast * depth;
    int first = begin + warp * abreast * depth;
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
      float scores[1][G];
      float numbers[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        numbers[i] = rotated[G * D + part + i];
      }
      score(numbers, scores[0]);
      const bool there[1] = {lane < lanes};
      seen.add(scores, there, [&](int, float (&weighed)[8]) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          weighed[i] = rotated[(G + 1) * D + part + i];
        }
      });
    }
#pragma unroll
    for (int step = lanes; step < 32; step *= 2) {
      seen.merge(step);
    }
    constexpr int PART = D + 4; // sums, then the greatest score and the weight
    if (lane < lanes) {
#pragma unroll
      for (int h = 0; h < G; ++h) {
        float* to = merged + (warp * G + h) * PART;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          to[part + i] = seen.sums[h][i];
        }
        if (lane == 0) {
          to[D] = seen.most[h];
          to[D + 1] = seen.weight[h];
        }
      }
    }
    join();
    // Of `count` parts that lie `apart`, number i of all heads' results.
    auto merge = [&](auto read, int count, int apart, int i, float& highest, float& weight) {
      const int h = i / D;
      highest = -1e30f;
      for (int p = 0; p < count; ++p) {
        highest = fmaxf(highest, read(p * apart + h * PART + D));
      }
      float sum = 0;
      weight = 0;
      for (int p = 0; p < count; ++p) {
        const float factor = exp2f(read(p * apart + h * PART + D) - highest);
        weight += factor * read(p * apart + h * PART + D + 1);
        sum += factor * read(p * apart + h * PART + i % D);
      }
      return sum;
    };
    float highest, weight;
    float* mine = parts + blockIdx.x * G * PART;
    for (int i = thread; i < G * D; i += worker_threads) {
      const float sum = merge([&](int at) { return merged[at]; }, workers, G * PART, i, highest, weight);
      if (splits == 1) {
        attended[team * G * D + i] = static_cast<T>(sum / weight);
      } else {
        float* to = mine + i / D * PART;
        to[i % D] = sum;
        if (i % D == 0) {
          to[D] = highest;
          to[D + 1] = weight;
        }
      }
    }
    if (splits > 1) {
      // The last of a head's blocks to come here puts the parts together.
      int* last_here = reinterpret_cast<int*>(partial);
      join();
      if (thread == 0) {
        unsigned long long before;
        asm volatile("atom.add.acq_rel.gpu.global.u64 %0, [%1], 1;" : "=l"(before) : "l"(counts + 1 + team) : "memory");
        *last_here = before == splits - 1;
        if (*last_here) {
          atomicExch(counts + 1 + team, 0ull);
        }
      }
      join();
      if (*last_here) {
        const float* from = parts + team * splits * G * PART;
        for (int i = thread; i < G * D; i += worker_threads) {
          const float sum = merge([&](int at) { return __ldcg(from + at); }, splits, G * PART, i, highest, weight);
          attended[team * G * D + i] = static_cast<T>(sum / weight);
        }
      }
    }
  }
  Scales<T, Last> last_scale;
  last_scale.begin(last_matrix, warp, lane);
  meet();

  enter<T, Last>(area, totals, attended, thread);
  multiply<Last>(ring, last_matrix, last_scale, area, totals, partial, warp, lane, [&](int tile, int at, float value) {
    if (at < LAST_TILE) {
      const int to = tile * LAST_TILE + at;
#if !WHOLE
      out[to] = static_cast<T>(value);
#else
      float stream = static_cast<float>(x[to]);
#if ADDS
      stream = rounded<T>(stream + static_cast<float>(delta[to]));
#endif
      sum[to] = static_cast<T>(stream + rounded<T>(value));
#endif
    }
  });
#if WHOLE
  T* inner = attended + WIDTH;
  Scales<T, Gates> gates_scale;
  gates_scale.begin(gates_matrix, warp, lane);
  meet();

  enter_normed<T, Gates>(area, totals, partial, second_norm, __int_as_float(SECOND_EPS), thread, [&](int at) {
    return __ldcg(reinterpret_cast<const uint4*>(sum) + at);
  });
  multiply<Gates>(ring, gates_matrix, gates_scale, area, totals, partial, warp, lane, [&](int tile, int at, float value) {
    constexpr int half = GATES_TILE / 2;
    const float up = rounded<T>(__shfl_down_sync(0xffffffffu, value, half));
    if (at < half) {
      inner[tile * half + at] = static_cast<T>(gated<T, GELU>(rounded<T>(value), up));
    }
  });
  Scales<T, Down> down_scale;
  down_scale.begin(down_matrix, warp, lane);
  meet();

  enter<T, Down>(area, totals, inner, thread);
  multiply<Down>(ring, down_matrix, down_scale, area, totals, partial, warp, lane, [&](int tile, int at, float value) {
    if (at < DOWN_TILE) {
      out[tile * DOWN_TILE + at] = static_cast<T>(value);
    }
  });
#endif
)";

} // namespace mlxlm::cuda
