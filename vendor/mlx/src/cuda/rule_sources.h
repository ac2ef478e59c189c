// The bodies of the CUDA kernels for the rules of recurrent.h over many tokens, as in cuda/kernel_sources.h. Their inputs lie in
// order. What a header defines as 0 is an input that there is not.
#pragma once

namespace mlxlm::cuda {

// The rules of recurrent.h: 8 lanes hold a state's row, KEYS / 8 entries each, over all tokens; a block holds ROWS rows.
// TOKENS tokens at a time are made ready in shared memory. What comes ahead of this source makes them ready
// (`make_ready`) and takes results (`take`).
constexpr const char* rule_source = R"(
  constexpr int GROUPS = KEYS / 32;
  const int lane = threadIdx.x & 7;
  const int local = threadIdx.x >> 3;
  const int row = first_row + local;
  float4 s[GROUPS];
  const int64_t states = ((batch * HEADS + head) * VALUES + row) * KEYS;
#pragma unroll
  for (int m = 0; m < GROUPS; ++m) {
#if STATE
    s[m] = row < VALUES ? *reinterpret_cast<const float4*>(state + states + m * 32 + lane * 4) : float4{};
#else
    s[m] = float4{};
#endif
  }
  for (int begin = 0; begin < tokens; begin += TOKENS) {
    const int count = min(TOKENS, tokens - begin);
    __syncthreads();
    make_ready(begin, count);
    __syncthreads();
    for (int t = 0; t < count; ++t) {
      float found = 0;
      float read = 0;
#if !BY_CHANNEL
      const float fade = fades[t];
#endif
#pragma unroll
      for (int m = 0; m < GROUPS; ++m) {
        const int at = m * 32 + lane * 4;
#if BY_CHANNEL
        const float4 w = *reinterpret_cast<const float4*>(&fades[t * KEYS + at]);
#else
        const float4 w = {fade, fade, fade, fade};
#endif
        const float4 q = *reinterpret_cast<const float4*>(&queried[t * KEYS + at]);
        s[m].x *= w.x;
        s[m].y *= w.y;
        s[m].z *= w.z;
        s[m].w *= w.w;
        read += s[m].x * q.x + s[m].y * q.y + s[m].z * q.z + s[m].w * q.w;
#if RULE == 1
        const float4 a = *reinterpret_cast<const float4*>(&keyed[t * KEYS + at]);
#elif RULE == 2
        const float4 a = *reinterpret_cast<const float4*>(&reading[t * KEYS + at]);
#endif
#if RULE != 0
        found += s[m].x * a.x + s[m].y * a.y + s[m].z * a.z + s[m].w * a.w;
#endif
      }
#pragma unroll
      for (int step = 4; step > 0; step >>= 1) {
        read += __shfl_xor_sync(0xffffffffu, read, step);
#if RULE != 0
        found += __shfl_xor_sync(0xffffffffu, found, step);
#endif
      }
      float written = written_values[t * ROWS + local];
#if RULE == 1
      written = strengths[t] * (written - found);
#endif
      float y = read + written * overlaps[t];
#if RULE == 2
      y += found * changed_overlaps[t];
#endif
#pragma unroll
      for (int m = 0; m < GROUPS; ++m) {
        const int at = t * KEYS + m * 32 + lane * 4;
        const float4 k = *reinterpret_cast<const float4*>(&keyed[at]);
        s[m].x += written * k.x;
        s[m].y += written * k.y;
        s[m].z += written * k.z;
        s[m].w += written * k.w;
#if RULE == 2
        const float4 b = *reinterpret_cast<const float4*>(&changing[at]);
        s[m].x += found * b.x;
        s[m].y += found * b.y;
        s[m].z += found * b.z;
        s[m].w += found * b.w;
#endif
      }
      if (lane == 0 && row < VALUES) {
        take(begin + t, t, y);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < GROUPS; ++m) {
    if (row < VALUES) {
      *reinterpret_cast<float4*>(next + states + m * 32 + lane * 4) = s[m];
    }
  }
)";

// Ahead of rule_source. Inputs queries, keys (B, T, KEY_HEADS, KEYS), values (B, T, HEADS, VALUES), decay (B, T, HEADS) or,
// BY_CHANNEL, (B, T, HEADS, KEYS); with RULE 1 strength (B, T, HEADS), with RULE 2 readers and, with CHANGES, changes as
// keys; with STATE state (B, HEADS, VALUES, KEYS), with OWN own (B, T). Outputs y as values, next as state.
constexpr const char* recurrence_source = R"(
  __shared__ __align__(16) float keyed[TOKENS * KEYS];
  __shared__ __align__(16) float queried[TOKENS * KEYS];
#if BY_CHANNEL
  __shared__ __align__(16) float fades[TOKENS * KEYS];
#else
  __shared__ float fades[TOKENS];
#endif
#if RULE == 1
  __shared__ float strengths[TOKENS];
#elif RULE == 2
  __shared__ __align__(16) float reading[TOKENS * KEYS];
  __shared__ float changed_overlaps[TOKENS];
#if CHANGES
  __shared__ __align__(16) float changing[TOKENS * KEYS];
#else
  float* changing = keyed;
#endif
#endif
  __shared__ float overlaps[TOKENS];
  __shared__ float written_values[TOKENS * ROWS];
  const int tokens = values_shape[1];
  const int first_row = blockIdx.x * ROWS;
  const int head = blockIdx.y;
  const int64_t batch = blockIdx.z;
  const int key_head = head / (HEADS / KEY_HEADS);
  auto sum_of_warp = [](float value) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
      value += __shfl_xor_sync(0xffffffffu, value, step);
    }
    return value;
  };
  // A warp for each token.
  auto make_ready = [&](int begin, int count) {
    const int warp_lane = threadIdx.x & 31;
    for (int t = threadIdx.x >> 5; t < count; t += ROWS * 8 / 32) {
      const int64_t token = batch * tokens + begin + t;
      const int64_t key = (token * KEY_HEADS + key_head) * KEYS;
#if OWN
      const bool is_own = own[token];
#else
      constexpr bool is_own = true;
#endif
      float query_squares = 0;
      float key_squares = 0;
      float products = 0;
      float changed = 0;
#pragma unroll
      for (int i = warp_lane; i < KEYS; i += 32) {
        const float q = static_cast<float>(queries[key + i]);
        const float k = static_cast<float>(keys[key + i]);
        queried[t * KEYS + i] = q;
        keyed[t * KEYS + i] = k;
        query_squares += q * q;
        key_squares += k * k;
        products += q * k;
#if BY_CHANNEL
        fades[t * KEYS + i] = is_own ? expf(static_cast<float>(decay[(token * HEADS + head) * KEYS + i])) : 1.0f;
#endif
#if RULE == 2
        reading[t * KEYS + i] = is_own ? static_cast<float>(readers[key + i]) : 0.0f;
#if CHANGES
        const float b = static_cast<float>(changes[key + i]);
        changing[t * KEYS + i] = b;
        changed += b * q;
#else
        changed += k * q;
#endif
#endif
      }
      const float query_length = __int_as_float(QUERY_LENGTH);
      const float key_length = __int_as_float(KEY_LENGTH);
      const float query_factor =
          query_length > 0 ? query_length * rsqrtf(sum_of_warp(query_squares) + 1e-6f) : 1.0f;
      const float key_factor = key_length > 0 ? key_length * rsqrtf(sum_of_warp(key_squares) + 1e-6f) : 1.0f;
      if (query_length > 0 || key_length > 0) {
#pragma unroll
        for (int i = warp_lane; i < KEYS; i += 32) {
          queried[t * KEYS + i] *= query_factor;
          keyed[t * KEYS + i] *= key_factor;
        }
      }
      products = sum_of_warp(products);
      changed = sum_of_warp(changed);
      if (warp_lane == 0) {
        overlaps[t] = products * query_factor * key_factor;
#if RULE == 1
        strengths[t] = is_own ? static_cast<float>(strength[token * HEADS + head]) : 0.0f;
#elif RULE == 2
        changed_overlaps[t] = changed * query_factor * (CHANGES ? 1.0f : key_factor);
#endif
#if !BY_CHANNEL
        fades[t] = is_own ? expf(static_cast<float>(decay[token * HEADS + head])) : 1.0f;
#endif
      }
      for (int r = warp_lane; r < ROWS; r += 32) {
        const bool has = is_own && first_row + r < VALUES;
        written_values[t * ROWS + r] =
            has ? static_cast<float>(values[(token * HEADS + head) * VALUES + first_row + r]) : 0.0f;
      }
    }
  };
  auto take = [&](int token, int, float result) {
    y[((batch * tokens + token) * HEADS + head) * VALUES + first_row + (threadIdx.x >> 3)] =
        static_cast<T>(result);
  };
)";

// Ahead of rule_source, with RULE 0. Inputs mixed (B, T, HEADS VALUES + 2 KEY_HEADS KEYS), steps (B, T, HEADS), with GATE
// gate (B, T, HEADS VALUES), rates, passing, step_bias (HEADS), with STATE state (B, HEADS, VALUES, KEYS), with OWN own
// (B, T). Outputs y as gate, next as state.
constexpr const char* state_space_source = R"(
  __shared__ __align__(16) float keyed[TOKENS * KEYS];
  __shared__ __align__(16) float queried[TOKENS * KEYS];
  __shared__ float fades[TOKENS];
  __shared__ float overlaps[TOKENS];
  __shared__ float written_values[TOKENS * ROWS];
  __shared__ float entering[TOKENS * ROWS];
  const int tokens = mixed_shape[1];
  const int first_row = blockIdx.x * ROWS;
  const int head = blockIdx.y;
  const int64_t batch = blockIdx.z;
  constexpr int INNER = HEADS * VALUES;
  constexpr int WIDTH = INNER + 2 * KEY_HEADS * KEYS;
  const int key = INNER + head / (HEADS / KEY_HEADS) * KEYS;
  const float rate = -expf(static_cast<float>(rates[head]));
  const float passes = static_cast<float>(passing[head]);
  const float bias = static_cast<float>(step_bias[head]);
  auto make_ready = [&](int begin, int count) {
    const int warp_lane = threadIdx.x & 31;
    for (int t = threadIdx.x >> 5; t < count; t += ROWS * 8 / 32) {
      const int64_t token = batch * tokens + begin + t;
      const T* x = mixed + token * WIDTH;
      float products = 0;
#pragma unroll
      for (int i = warp_lane; i < KEYS; i += 32) {
        const float k = static_cast<float>(x[key + i]);
        const float q = static_cast<float>(x[key + KEY_HEADS * KEYS + i]);
        keyed[t * KEYS + i] = k;
        queried[t * KEYS + i] = q;
        products += q * k;
      }
#pragma unroll
      for (int step = 16; step > 0; step >>= 1) {
        products += __shfl_xor_sync(0xffffffffu, products, step);
      }
      const float raw = static_cast<float>(steps[token * HEADS + head]) + bias;
      const float softplus = fmaxf(raw, 0.0f) + log1pf(expf(-fabsf(raw)));
      float size = fminf(fmaxf(softplus, __int_as_float(LEAST)), __int_as_float(MOST));
#if OWN
      size = own[token] ? size : 0.0f;
#endif
      if (warp_lane == 0) {
        overlaps[t] = products;
        fades[t] = expf(rate * size);
      }
      for (int r = warp_lane; r < ROWS; r += 32) {
        const float value =
            first_row + r < VALUES ? static_cast<float>(x[head * VALUES + first_row + r]) : 0.0f;
        entering[t * ROWS + r] = value;
        written_values[t * ROWS + r] = value * size;
      }
    }
  };
  auto take = [&](int token, int t, float result) {
    const int mine = threadIdx.x >> 3;
    const int64_t at = (batch * tokens + token) * INNER + head * VALUES + first_row + mine;
    result += passes * entering[t * ROWS + mine];
#if GATE
    const float opened = static_cast<float>(gate[at]);
    result *= opened / (1.0f + expf(-opened));
#endif
    y[at] = static_cast<T>(result);
  };
)";

} // namespace mlxlm::cuda
