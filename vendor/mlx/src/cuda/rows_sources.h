// One token of each of several sequences: attention behind the joint projection. cuda/attention_parts.h has the work of a block.
#pragma once

#include "cuda/overlap_sources.h"

namespace mlxlm::cuda {

// A block for a part of the keys (x), some queries of one head of keys (y) and a sequence (z). PARTS: others attend to the rest.
// Inputs, in this order, those in brackets where the layer has them: keys, values (B, KV_HEADS, rows, HEAD_DIMS), joint
// (B, (HEADS + 2 KV_HEADS) HEAD_DIMS), or JOINT_PARTS of it in float32, sizes (2 + 2 B: where the rows in use end, how many there are
// before they begin anew, each sequence's first, and the position of its token), [query_norm, key_norm], [freqs].
// Output out: (B, HEADS, HEAD_DIMS), or the parts, (B, teams, parts of the keys, HEADS_A_BLOCK, HEAD_DIMS + 4).
constexpr const char* attend_rows_source = R"(
  using namespace mlxlm_token;
  constexpr int D = HEAD_DIMS;
  constexpr int G = HEADS_A_BLOCK;
  constexpr int TEAMS = HEADS / G;
  constexpr int WIDTH = (HEADS + 2 * KV_HEADS) * D;
  using Here = Heads<T, D, G, ROTATED, HEAD_EPS, ROPE_SCALE, LOG2_BASE, SCORE_SCALE>;
  __shared__ float turned[Here::turned];
  __shared__ float merged[Here::merged];
  const int thread = threadIdx.x;
  const int warp = thread / 32;
  const int lane = thread % 32;
  const int split = blockIdx.x;
  const int splits = gridDim.x;
  const int team = blockIdx.y;
  const int64_t row = blockIdx.z;
  const int head = team * KV_HEADS / TEAMS;
  const int used = sizes[0];
  const InRing place = {sizes[1]};
  const int start = sizes[2 + row];
  const int position = sizes[2 + gridDim.z + row];
  const bool newest = split == splits - 1;
  const int share = (used - start + splits - 1) / splits;
  const int begin = start + split * share;
  const int end = min(used, begin + share);
  auto joint_number = [&](int at) {
    if constexpr (JOINT_PARTS == 1) {
      return Here::written(reinterpret_cast<const T*>(joint), at);
    } else {
      float sum = 0;
#pragma unroll
      for (int part = 0; part < JOINT_PARTS; ++part) {
        sum += __ldcg(reinterpret_cast<const float*>(joint) + part * gridDim.z * WIDTH + at);
      }
      return rounded<T>(sum);
    }
  };
  T* own_keys = const_cast<T*>(keys) + row * keys_strides[0] + head * keys_strides[1];
  T* own_values = const_cast<T*>(values) + row * values_strides[0] + head * values_strides[1];
  const int64_t key_stride = keys_strides[2];
  const int64_t value_stride = values_strides[2];
  Here::prefetch(own_keys, key_stride, begin, end, place, thread);
  Here::prefetch(own_values, value_stride, begin, end, place, thread);
)" MLXLM_BEHIND_LAUNCH R"(
  for (int h = warp; h < G + (newest ? 2 : 0); h += workers) {
    const int from = h < G ? team * G + h : h == G ? HEADS + head : HEADS + KV_HEADS + head;
    Here::template turn<NORMS, FREQS>(
        turned + h * D, [&](int i) { return joint_number(row * WIDTH + from * D + i); }, h <= G,
        h < G ? QUERY_NORM : KEY_NORM, WAVES, position, lane);
  }
  join();
  if (newest && team % (TEAMS / KV_HEADS) == 0) {
    for (int i = thread; i < D; i += worker_threads) {
      own_keys[place(used) * key_stride + i] = static_cast<T>(turned[G * D + i]);
      own_values[place(used) * value_stride + i] = static_cast<T>(turned[(G + 1) * D + i]);
    }
  }
  Here::template see<DEPTH>(
      merged, turned, own_keys, own_values, key_stride, value_stride, begin, end, end, place, newest, warp, lane);
  join();
  for (int i = thread; i < G * D; i += worker_threads) {
    float highest, weight;
    const float sum = Here::together([&](int at) { return merged[at]; }, workers, i, highest, weight);
#if PARTS
    Here::leave(out + ((row * TEAMS + team) * splits + split) * G * Here::part, i, sum, highest, weight);
#else
    out[(row * HEADS + team * G) * D + i] = static_cast<T>(sum / weight);
#endif
  }
)";

// A block for some queries (x) and a sequence (y). Input parts as above. Output out (B, HEADS, HEAD_DIMS).
constexpr const char* join_parts_source = MLXLM_BEHIND_LAUNCH R"(
  using namespace mlxlm_token;
  constexpr int D = HEAD_DIMS;
  constexpr int G = HEADS_A_BLOCK;
  using Here = Heads<T, D, G, 0, 0, 0, 0, 0>;
  const int splits = parts_shape[2];
  const int64_t team = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
  const float* from = parts + team * splits * G * Here::part;
  for (int i = threadIdx.x; i < G * D; i += blockDim.x) {
    float highest, weight;
    const float sum = Here::together([&](int at) { return from[at]; }, splits, i, highest, weight);
    out[team * G * D + i] = static_cast<Out>(sum / weight);
  }
)";

// Eight numbers of rows that come whole, or in PARTS in float32, `size` vectors of eight each, which are added.
constexpr const char* in_parts_header = R"(
namespace mlxlm_token {

template <typename T, int PARTS, typename From>
__device__ void eight_of(const From* from, int64_t size, int64_t vector, float (&values)[8]) {
  if constexpr (PARTS == 1) {
    floats_of<T>(reinterpret_cast<const uint4*>(from)[vector], values);
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      values[k] = 0;
    }
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
      const float4* four = reinterpret_cast<const float4*>(from) + 2 * (part * size + vector);
      const float4 low = four[0];
      const float4 high = four[1];
      const float more[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        values[k] += more[k];
      }
    }
  }
}

} // namespace mlxlm_token
)";

// Eight numbers a thread. Input joint (rows, 2 INNER): gates, then values; or PARTS of it in float32, (PARTS, rows, 2 INNER), which are
// added. Output out (rows, INNER).
constexpr const char* gate_rows_source = MLXLM_BEHIND_LAUNCH R"(
  using namespace mlxlm_token;
  constexpr int vectors = INNER / 8; // of a row
  const int64_t rows = joint_shape[PARTS > 1 ? 1 : 0];
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= vectors * rows) {
    return;
  }
  const int64_t from = at / vectors * 2 * vectors + at % vectors;
  float gates[8];
  float values[8];
  eight_of<Out, PARTS>(joint, rows * 2 * vectors, from, gates);
  eight_of<Out, PARTS>(joint, rows * 2 * vectors, from + vectors, values);
  uint4 result;
  Out* eight = reinterpret_cast<Out*>(&result);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    eight[k] = static_cast<Out>(gated<Out, GELU>(rounded<Out>(gates[k]), rounded<Out>(values[k])));
  }
  reinterpret_cast<uint4*>(out)[at] = result;
)";

// A block a row of DIMS numbers. Inputs behind (DIMS), delta (rows, DIMS), or PARTS of it in float32; with ADDS x (rows, DIMS), weight
// (DIMS). Outputs with ADDS sum: x and the norm of delta by `behind`; normed: the norm of that sum, or of delta.
constexpr const char* norm_behind_source = MLXLM_BEHIND_LAUNCH R"(
  using namespace mlxlm_token;
  constexpr int vectors = DIMS / 8;
  __shared__ float partial[2 * workers];
  const int thread = threadIdx.x;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * vectors;
  HeldRow<T, DIMS> row;
  row.load(thread, [&](int at) {
    float values[8];
    eight_of<T, PARTS>(delta, static_cast<int64_t>(gridDim.x) * vectors, first + at, values);
    uint4 result;
    T* eight = reinterpret_cast<T*>(&result);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      eight[k] = static_cast<T>(values[k]);
    }
    return result;
  });
  row.norm(partial, behind, __int_as_float(BEHIND_EPS), thread);
#if ADDS
  row.change(thread, [&](int at, uint4 added) {
    const uint4 both = sum_of<T>(reinterpret_cast<const uint4*>(x)[first + at], added);
    reinterpret_cast<uint4*>(sum)[first + at] = both;
    return both;
  });
  row.norm(partial + workers, weight, __int_as_float(EPS), thread);
#endif
  row.change(thread, [&](int at, uint4 vector) {
    reinterpret_cast<uint4*>(normed)[first + at] = vector;
    return vector;
  });
)";

} // namespace mlxlm::cuda
