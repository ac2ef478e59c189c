// One token of each of several sequences: attention behind the joint projection. cuda/attention_parts.h has the work of a block.
#pragma once

#include "cuda/overlap_sources.h"

namespace mlxlm::cuda {

// A block for a part of the keys (x), some queries of one head of keys (y) and a sequence (z). PARTS: others attend to the rest.
// Inputs, in this order, those in brackets where the layer has them: keys, values (B, KV_HEADS, rows, HEAD_DIMS), joint
// (B, (HEADS + 2 KV_HEADS) HEAD_DIMS), or JOINT_PARTS of it in float32, sizes (1 + B: rows in use, and each sequence's first),
// [query_norm, key_norm], [freqs].
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
  const int start = sizes[1 + row];
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
  Here::prefetch(own_keys, key_stride, begin, end, thread);
  Here::prefetch(own_values, value_stride, begin, end, thread);
)" MLXLM_BEHIND_LAUNCH R"(
  for (int h = warp; h < G + (newest ? 2 : 0); h += workers) {
    const int from = h < G ? team * G + h : h == G ? HEADS + head : HEADS + KV_HEADS + head;
    Here::template turn<NORMS, FREQS>(
        turned + h * D, [&](int i) { return joint_number(row * WIDTH + from * D + i); }, h <= G,
        h < G ? QUERY_NORM : KEY_NORM, WAVES, used - start, lane);
  }
  join();
  if (newest && team % (TEAMS / KV_HEADS) == 0) {
    for (int i = thread; i < D; i += worker_threads) {
      own_keys[used * key_stride + i] = static_cast<T>(turned[G * D + i]);
      own_values[used * value_stride + i] = static_cast<T>(turned[(G + 1) * D + i]);
    }
  }
  Here::template see<DEPTH>(merged, turned, own_keys, own_values, key_stride, value_stride, begin, end, end, newest, warp, lane);
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
  auto read = [&](int64_t vector, float (&values)[8]) {
    if constexpr (PARTS == 1) {
      floats_of<T>(reinterpret_cast<const uint4*>(joint)[vector], values);
    } else {
      for (int k = 0; k < 8; ++k) {
        values[k] = 0;
      }
#pragma unroll
      for (int part = 0; part < PARTS; ++part) {
        const float4* four = reinterpret_cast<const float4*>(joint + (part * rows * 2 * vectors + vector) * 8);
        const float4 low = four[0];
        const float4 high = four[1];
        const float more[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        for (int k = 0; k < 8; ++k) {
          values[k] += more[k];
        }
      }
    }
  };
  float gates[8];
  float values[8];
  read(from, gates);
  read(from + vectors, values);
  uint4 result;
  Out* eight = reinterpret_cast<Out*>(&result);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    eight[k] = static_cast<Out>(gated<Out, GELU>(rounded<Out>(gates[k]), rounded<Out>(values[k])));
  }
  reinterpret_cast<uint4*>(out)[at] = result;
)";

} // namespace mlxlm::cuda
