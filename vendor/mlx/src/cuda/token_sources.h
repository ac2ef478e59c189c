// One token through a whole layer as one CUDA kernel. cuda/stream_sources.h has the products, cuda/attention_parts.h attention, cuda/token_parts.h the rest.
#pragma once

#include "cuda/overlap_sources.h"

namespace mlxlm::cuda {

// WHOLE: a layer, else its attention alone, of a row that is normed already. SHARED: ranks have some of the heads and a part of the
// feed-forward block each; what they make of them is summed while the blocks wait for each other anyway.
// Inputs, in this order, those in brackets where the layer has them: x, [delta], [first_norm], joint with [its scales and
// biases, a bias], last likewise, keys, values (1, KV_HEADS, rows, HEAD_DIMS), sizes (3: rows in use, position, the row that is written),
// [query_norm, key_norm], [freqs], [second_norm, gates, down], [behind_attention, behind_feed], [table],
// state (1 + HEADS / HEADS_A_BLOCK).
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
  using Here = Heads<T, D, G, ROTATED, HEAD_EPS, ROPE_SCALE, LOG2_BASE, SCORE_SCALE>;
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

  const int used = sizes[0];
  const int own_row = sizes[2]; // behind those in use, or one of them, which is replaced
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
    Here::prefetch(all_keys, key_stride, begin, end, InOrder(), thread);
    Here::prefetch(all_values, value_stride, begin, end, InOrder(), thread);
  }

  Scales<T, Joint> joint_scale;
  joint_scale.begin(joint_matrix, warp, lane);
)" MLXLM_BEHIND_LAUNCH R"(
  auto* counts = const_cast<unsigned long long*>(reinterpret_cast<const unsigned long long*>(state));
  Meeting meet(counts, SHARED);
#if SHARED
  mlxlm::RowSum<T, PEERS> row_sum(table, RANK, RANKS);
#endif
  T* heads = room;
  T* attended = heads + JOINT_ROWS;
#if WHOLE
  T* inner = attended + WIDTH;
  T* raw = inner + INNER; // a row ahead of the norm behind it
  auto entering = [&](int at) {
    const uint4 values = reinterpret_cast<const uint4*>(x)[at];
#if ADDS
    return sum_of<T>(values, reinterpret_cast<const uint4*>(delta)[at]);
#else
    return values;
#endif
  };
  auto written_row = [&](int at) { return __ldcg(reinterpret_cast<const uint4*>(raw) + at); };
  auto entered = [&](int at) {
#if ADDS
    return static_cast<T>(static_cast<float>(x[at]) + static_cast<float>(delta[at]));
#else
    return x[at];
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
      // A plain product is rounded with its bias.
      value = (JOINT_BITS == 16 ? value : rounded<T>(value)) + static_cast<float>(joint_bias[to]);
#endif
      heads[to] = static_cast<T>(value);
    }
  });
  meet();
#if SHARED
  if (blockIdx.x == 0 && thread == 0) {
    row_sum.count(1 + WHOLE);
  }
#endif

  if (attends) {
    float* turned = reinterpret_cast<float*>(area); // the queries, the new key, the new value
    float* merged = turned + Here::turned;
    for (int h = warp; h < G + (newest ? 2 : 0); h += workers) {
      const int from = h < G ? team * G + h : h == G ? HEADS + head : HEADS + KV_HEADS + head;
      Here::template turn<NORMS, FREQS>(
          turned + h * D, [&](int i) { return Here::written(heads + from * D, i); }, h <= G,
          h < G ? QUERY_NORM : KEY_NORM, WAVES, sizes[1], lane);
    }
    join();
    if (newest && team % (TEAMS / KV_HEADS) == 0) {
      for (int i = thread; i < D; i += worker_threads) {
        all_keys[own_row * key_stride + i] = static_cast<T>(turned[G * D + i]);
        all_values[own_row * value_stride + i] = static_cast<T>(turned[(G + 1) * D + i]);
      }
    }
    Here::template see<2>(
        merged, turned, all_keys, all_values, key_stride, value_stride, begin, end, own_row, InOrder(), newest, warp, lane);
    join();
    float highest, weight;
    for (int i = thread; i < G * D; i += worker_threads) {
      const float sum = Here::together([&](int at) { return merged[at]; }, workers, i, highest, weight);
      if (splits == 1) {
        attended[team * G * D + i] = static_cast<T>(sum / weight);
      } else {
        Here::leave(parts + blockIdx.x * G * Here::part, i, sum, highest, weight);
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
        const float* from = parts + team * splits * G * Here::part;
        for (int i = thread; i < G * D; i += worker_threads) {
          const float sum = Here::together([&](int at) { return __ldcg(from + at); }, splits, i, highest, weight);
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
#if SHARED
    send_tile<T, LAST_TILE>(row_sum, tile, at, value);
#else
    if (at < LAST_TILE) {
      const int to = tile * LAST_TILE + at;
#if BEHIND
      raw[to] = static_cast<T>(value);
#elif WHOLE
      sum[to] = static_cast<T>(static_cast<float>(entered(to)) + rounded<T>(value));
#else
      out[to] = static_cast<T>(value);
#endif
    }
#endif
  });
#if SHARED
  receive_tiles<DIMS, LAST_TILE>(row_sum, thread, [&](int line, uint2 four) {
#if BEHIND
    reinterpret_cast<uint2*>(raw)[line] = four;
#elif WHOLE
    T* values = reinterpret_cast<T*>(&four);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[i] = static_cast<T>(static_cast<float>(entered(4 * line + i)) + static_cast<float>(values[i]));
    }
    reinterpret_cast<uint2*>(sum)[line] = four;
#else
    reinterpret_cast<uint2*>(out)[line] = four;
#endif
  });
#endif
#if WHOLE
  Scales<T, Gates> gates_scale;
  gates_scale.begin(gates_matrix, warp, lane);
  meet();

#if BEHIND
  HeldRow<T, DIMS> stream;
  stream.load(thread, written_row);
  stream.norm(partial, behind_attention, __int_as_float(BEHIND_ATTENTION_EPS), thread);
  stream.change(thread, [&](int at, uint4 normed) { return sum_of<T>(entering(at), normed); });
  stream.leave(sum, thread);
  stream.norm(partial + workers, second_norm, __int_as_float(SECOND_EPS), thread);
  enter<T, Gates>(area, totals, stream, thread);
#else
  enter_normed<T, Gates>(area, totals, partial, second_norm, __int_as_float(SECOND_EPS), thread, [&](int at) {
    return __ldcg(reinterpret_cast<const uint4*>(sum) + at);
  });
#endif
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
  T* given = BEHIND ? raw : out;
#if SHARED
  ++row_sum.round;
#endif
  multiply<Down>(ring, down_matrix, down_scale, area, totals, partial, warp, lane, [&](int tile, int at, float value) {
#if SHARED
    send_tile<T, DOWN_TILE>(row_sum, tile, at, value);
#else
    if (at < DOWN_TILE) {
      given[tile * DOWN_TILE + at] = static_cast<T>(value);
    }
#endif
  });
#if SHARED
  receive_tiles<DIMS, DOWN_TILE>(
      row_sum, thread, [&](int line, uint2 four) { reinterpret_cast<uint2*>(given)[line] = four; });
#endif
#if BEHIND
  meet();
  stream.load(thread, written_row);
  stream.norm(partial, behind_feed, __int_as_float(BEHIND_FEED_EPS), thread);
  stream.leave(out, thread);
#endif
#endif
)";

} // namespace mlxlm::cuda
