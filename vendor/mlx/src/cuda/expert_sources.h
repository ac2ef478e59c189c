// One token through its experts, and the choice of them, as CUDA kernels. cuda/stream_sources.h has the products.
#pragma once

namespace mlxlm::cuda {

constexpr const char* experts_header = R"(
namespace mlxlm_experts {

using namespace mlxlm_token;

// The rows of gates and of values, by turns of half a tile, of the chosen experts one after the other.
template <typename T, typename M, int INNER, int COUNT>
struct Gates {
  const void* w[2];
  const T* scales[2];
  const T* biases[2];
  const int* chosen;

  static constexpr int half = M::tile / 2;

  __device__ int tiles() const {
    return COUNT * (INNER / half);
  }
  __device__ Row<T> row(int tile, int r, int cut) const {
    const int kind = r < half ? 0 : 1;
    const int64_t at = static_cast<int64_t>(chosen[tile / (INNER / half)]) * INNER + tile % (INNER / half) * half + r % half;
    const int64_t group = at * M::matrix_groups + cut * M::groups;
    return {
        static_cast<const char*>(w[kind]) + at * M::matrix_row_bytes + cut * M::row_bytes, scales[kind] + group,
        biases[kind] + group};
  }
  __device__ float factor(int) const {
    return 1.0f;
  }
};

// Rows as long as those of all chosen experts together, whose cuts are the experts'.
template <typename T, typename M, int DIMS, int COUNT>
struct Mixed {
  const void* w;
  const T* scales;
  const T* biases;
  const int* chosen;
  const float* weights;

  static constexpr int cuts = M::cuts / COUNT; // of one expert

  __device__ int tiles() const {
    return DIMS / M::tile;
  }
  __device__ Row<T> row(int tile, int r, int cut) const {
    const int64_t at = static_cast<int64_t>(chosen[cut / cuts]) * DIMS + tile * M::tile + r;
    const int64_t group = at * (M::groups * cuts) + cut % cuts * M::groups;
    return {
        static_cast<const char*>(w) + at * (M::row_bytes * cuts) + cut % cuts * M::row_bytes, scales + group, biases + group};
  }
  __device__ float factor(int cut) const {
    return weights[cut / cuts];
  }
};

} // namespace mlxlm_experts
)";

// Inputs x (DIMS), experts (COUNT), weights (COUNT), gate and up (experts, INNER, DIMS), down (experts, DIMS, INNER), each with
// its scales and biases where it is packed, state, after. Outputs out (DIMS), the weighted sum; room (COUNT · INNER).
constexpr const char* experts_token_source = R"(
  using namespace mlxlm_experts;
  using Up = Layout<T, UP_BITS, UP_GROUP, DIMS, UP_TILE, UP_CUTS>;
  using Down = Layout<T, DOWN_BITS, DOWN_GROUP, COUNT * INNER, DOWN_TILE, COUNT * DOWN_CUTS>;
  using Slots = Ring<SLOTS, SLOT_BYTES>;
  static_assert(Up::slot_bytes <= SLOT_BYTES && Down::slot_bytes <= SLOT_BYTES);
  extern __shared__ __align__(128) char memory[];
  __shared__ int chosen[COUNT];
  __shared__ float shares[COUNT];
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
  if (thread < COUNT) {
    chosen[thread] = min(static_cast<int>(experts[thread]), static_cast<int>(gate_shape[0]) - 1);
    shares[thread] = static_cast<float>(weights[thread]);
  }
  __syncthreads();
  const Gates<T, Up, INNER, COUNT> gates_and_values = {{gate, up}, {GATE_SCALES, UP_SCALES}, {GATE_BIASES, UP_BIASES}, chosen};
  const Mixed<T, Down, DIMS, COUNT> mixed = {down, DOWN_SCALES, DOWN_BIASES, chosen, shares};
  if (warp == workers) {
    feed<Up>(ring, gates_and_values, lane);
    feed<Down>(ring, mixed, lane);
    return;
  }
  Meeting meet(const_cast<unsigned long long*>(reinterpret_cast<const unsigned long long*>(state)));
  Scales<T, Up> up_scale;
  up_scale.begin(gates_and_values, warp, lane);
  enter<T, Up>(area, totals, x, thread);
  multiply<Up>(ring, gates_and_values, up_scale, area, totals, partial, warp, lane, [&](int tile, int at, float value) {
    constexpr int half = UP_TILE / 2;
    const float other = rounded<T>(__shfl_down_sync(0xffffffffu, value, half));
    if (at < half) {
      room[tile * half + at] = static_cast<T>(gated<T, GELU>(rounded<T>(value), other));
    }
  });
  Scales<T, Down> down_scale;
  down_scale.begin(mixed, warp, lane);
  meet();
  enter<T, Down>(area, totals, room, thread);
  multiply<Down>(ring, mixed, down_scale, area, totals, partial, warp, lane, [&](int tile, int at, float value) {
    if (at < DOWN_TILE) {
      out[tile * DOWN_TILE + at] = static_cast<T>(value);
    }
  });
)";

// The COUNT highest probabilities of a softmax over a row's logits (rows, EXPERTS), lowest first, as a stable sort would
// give them; NORMALIZE: made to sum to one. One warp a row. Outputs experts, weights (rows, COUNT).
constexpr const char* route_source = R"(
  constexpr int EACH = (EXPERTS + 31) / 32;
  const int lane = threadIdx.x % 32;
  const int row = blockIdx.x;
  float values[EACH];
  float highest = -1e30f;
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    const int at = i * 32 + lane;
    values[i] = at < EXPERTS ? static_cast<float>(logits[row * EXPERTS + at]) : -1e30f;
    highest = fmaxf(highest, values[i]);
  }
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, step));
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    values[i] = expf(values[i] - highest);
    sum += values[i];
  }
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
    sum += __shfl_xor_sync(0xffffffffu, sum, step);
  }
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    values[i] = i * 32 + lane < EXPERTS ? static_cast<float>(static_cast<T>(values[i] / sum)) : -1.0f;
  }
  float mine = 0; // lane n has the n-th of the result
  int chosen = 0;
  float total = 0;
  for (int n = COUNT - 1; n >= 0; --n) {
    float best = -1.0f;
    int where = 0;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      if (values[i] >= best) {
        best = values[i];
        where = i * 32 + lane;
      }
    }
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
      const float other = __shfl_xor_sync(0xffffffffu, best, step);
      const int there = __shfl_xor_sync(0xffffffffu, where, step);
      if (other > best || (other == best && there > where)) {
        best = other;
        where = there;
      }
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      if (where == i * 32 + lane) {
        values[i] = -1.0f;
      }
    }
    if (lane == n) {
      mine = best;
      chosen = where;
    }
    total += best;
  }
  if (lane < COUNT) {
    experts[row * COUNT + lane] = chosen;
    weights[row * COUNT + lane] = static_cast<T>(NORMALIZE ? mine / static_cast<float>(static_cast<T>(total)) : mine);
  }
)";

} // namespace mlxlm::cuda
