// The bodies of the CUDA kernels of recurrent layers, as in cuda/kernel_sources.h. Their inputs lie in order. What a header
// defines as 0 is an input that there is not.
#pragma once

namespace mlxlm::cuda {

// One thread a channel, for TOKENS tokens. Inputs x, with OPENING opening, with GATE gate (B, T, CHANNELS), with BEFORE
// before (B, TAPS - 1, CHANNELS), weight (CHANNELS, TAPS), with BIAS bias (CHANNELS), with OWN own (B, T), with LENGTHS
// lengths (B). Outputs y (B, T, CHANNELS), after (B, TAPS - 1, CHANNELS).
constexpr const char* short_conv_source = R"(
  const int channel = blockIdx.x * blockDim.x + threadIdx.x;
  const int64_t row = blockIdx.z;
  const int tokens = x_shape[1];
  if (channel >= CHANNELS) {
    return;
  }
  auto entering = [&](int token) -> float {
    if (token < 0) {
#if BEFORE
      return static_cast<float>(before[(row * (TAPS - 1) + token + TAPS - 1) * CHANNELS + channel]);
#else
      return 0.0f;
#endif
    }
#if OWN
    if (!own[row * tokens + token]) {
      return 0.0f;
    }
#endif
    const int64_t at = (row * tokens + token) * CHANNELS + channel;
    const float value = static_cast<float>(x[at]);
#if OPENING
    return static_cast<float>(static_cast<T>(value * static_cast<float>(opening[at])));
#else
    return value;
#endif
  };
  float taps[TAPS];
  float window[TAPS];
  const int first = blockIdx.y * TOKENS;
#pragma unroll
  for (int j = 0; j < TAPS; ++j) {
    taps[j] = static_cast<float>(weight[channel * TAPS + j]);
    window[j] = j < TAPS - 1 ? entering(first - TAPS + 1 + j) : 0.0f;
  }
  for (int token = first; token < min(first + TOKENS, tokens); ++token) {
    window[TAPS - 1] = entering(token);
#if BIAS
    float sum = static_cast<float>(bias[channel]);
#else
    float sum = 0;
#endif
#pragma unroll
    for (int j = 0; j < TAPS; ++j) {
      sum += taps[j] * window[j];
    }
#pragma unroll
    for (int j = 0; j + 1 < TAPS; ++j) {
      window[j] = window[j + 1];
    }
    if constexpr (SILU != 0) {
      sum = sum / (1.0f + expf(-sum));
    }
    const int64_t at = (row * tokens + token) * CHANNELS + channel;
#if GATE
    sum *= static_cast<float>(gate[at]);
#endif
    y[at] = static_cast<T>(sum);
  }
  if (blockIdx.y == 0) {
#if LENGTHS
    const int length = lengths[row];
#else
    const int length = tokens;
#endif
#pragma unroll
    for (int j = 0; j < TAPS - 1; ++j) {
      after[(row * (TAPS - 1) + j) * CHANNELS + channel] = static_cast<T>(entering(length - TAPS + 1 + j));
    }
  }
)";

// One token of Gated DeltaNet between its projections: one block a head of values. Inputs entering (B, 2 KEY_HEADS KEYS +
// HEADS VALUES), gate (B, HEADS VALUES), strength, decay (B, HEADS), before (B, TAPS - 1, as entering), conv_weight (as
// entering, TAPS), rates, decay_bias (HEADS), weight (VALUES), state (B, HEADS, VALUES, KEYS). Outputs out as gate, after
// as before, next as state.
constexpr const char* delta_step_source = R"(
  constexpr int PER_LANE = KEYS / 32;
  constexpr int WARPS = THREADS / 32;
  constexpr int ROWS = (VALUES + WARPS - 1) / WARPS;
  constexpr int SHARED = HEADS / KEY_HEADS;
  constexpr int ALL_KEYS = KEY_HEADS * KEYS;
  constexpr int CHANNELS = 2 * ALL_KEYS + HEADS * VALUES;
  __shared__ float mixed[2 * KEYS + VALUES];
  __shared__ float results[VALUES];
  const int head = blockIdx.x;
  const int64_t batch = blockIdx.y;
  const int lane = threadIdx.x & 31;
  const int warp = threadIdx.x >> 5;
  const int key_head = head / SHARED;

  // The state is asked for first: it is what takes longest to come.
  const int64_t states = (batch * HEADS + head) * VALUES;
  float s[ROWS][PER_LANE];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    const int row = r * WARPS + warp;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
      s[r][i] = row < VALUES ? state[(states + row) * KEYS + i * 32 + lane] : 0.0f;
    }
  }

  for (int i = threadIdx.x; i < 2 * KEYS + VALUES; i += THREADS) {
    const int channel = i < KEYS ? key_head * KEYS + i
        : i < 2 * KEYS           ? ALL_KEYS + key_head * KEYS + i - KEYS
                                 : 2 * ALL_KEYS + head * VALUES + i - 2 * KEYS;
    float window[TAPS];
    float sum = 0;
#pragma unroll
    for (int j = 0; j < TAPS; ++j) {
      window[j] = static_cast<float>(
          j < TAPS - 1 ? before[(batch * (TAPS - 1) + j) * CHANNELS + channel] : entering[batch * CHANNELS + channel]);
      sum += static_cast<float>(conv_weight[channel * TAPS + j]) * window[j];
    }
    // Heads of values that share a head of keys all need it; one of them keeps what it looked back at.
    if (i >= 2 * KEYS || head % SHARED == 0) {
#pragma unroll
      for (int j = 0; j < TAPS - 1; ++j) {
        after[(batch * (TAPS - 1) + j) * CHANNELS + channel] = static_cast<T>(window[j + 1]);
      }
    }
    mixed[i] = static_cast<float>(static_cast<T>(sum / (1.0f + expf(-sum))));
  }
  const float raw = static_cast<float>(decay[batch * HEADS + head]) + static_cast<float>(decay_bias[head]);
  const float softplus = fmaxf(raw, 0.0f) + log1pf(expf(-fabsf(raw)));
  const float fade = expf(-expf(static_cast<float>(rates[head])) * softplus);
  const float beta = 1.0f / (1.0f + expf(-static_cast<float>(strength[batch * HEADS + head])));
  __syncthreads();

  float q[PER_LANE];
  float k[PER_LANE];
  float sums[3] = {};
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i) {
    q[i] = mixed[i * 32 + lane];
    k[i] = mixed[KEYS + i * 32 + lane];
    sums[0] += q[i] * q[i];
    sums[1] += k[i] * k[i];
    sums[2] += q[i] * k[i];
  }
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], step);
    }
  }
  const float query_factor = rsqrtf(sums[0] + 1e-6f) * rsqrtf(static_cast<float>(KEYS));
  const float key_factor = rsqrtf(sums[1] + 1e-6f);
  const float overlap = sums[2] * query_factor * key_factor;
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i) {
    q[i] *= query_factor;
    k[i] *= key_factor;
  }

  float found[ROWS] = {};
  float read[ROWS] = {};
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
      s[r][i] *= fade;
      found[r] += s[r][i] * k[i];
      read[r] += s[r][i] * q[i];
    }
  }
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      found[r] += __shfl_xor_sync(0xffffffffu, found[r], step);
      read[r] += __shfl_xor_sync(0xffffffffu, read[r], step);
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    const int row = r * WARPS + warp;
    if (row < VALUES) {
      const float change = beta * (mixed[2 * KEYS + row] - found[r]);
#pragma unroll
      for (int i = 0; i < PER_LANE; ++i) {
        next[(states + row) * KEYS + i * 32 + lane] = s[r][i] + change * k[i];
      }
      if (lane == 0) {
        results[row] = read[r] + change * overlap;
      }
    }
  }
  __syncthreads();

  float squares = 0;
  for (int i = lane; i < VALUES; i += 32) {
    squares += results[i] * results[i];
  }
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
    squares += __shfl_xor_sync(0xffffffffu, squares, step);
  }
  const float factor = rsqrtf(squares / VALUES + __int_as_float(EPS));
  for (int i = threadIdx.x; i < VALUES; i += THREADS) {
    const int64_t at = (batch * HEADS + head) * VALUES + i;
    const float opened = static_cast<float>(gate[at]);
    const float normed = results[i] * factor * static_cast<float>(weight[i]);
    out[at] = static_cast<T>(normed * opened / (1.0f + expf(-opened)));
  }
)";

// One thread a channel. Inputs x, steps, gate (B, T, CHANNELS), entering, reading (B, T, ENTRIES), rates (CHANNELS,
// ENTRIES), passing (CHANNELS), with STATE state (B, CHANNELS, ENTRIES), with OWN own (B, T). Outputs y as x, next as state.
constexpr const char* selective_scan_source = R"(
  const int channel = blockIdx.x * blockDim.x + threadIdx.x;
  const int64_t batch = blockIdx.y;
  const int tokens = x_shape[1];
  if (channel >= CHANNELS) {
    return;
  }
  float s[ENTRIES];
  float rate[ENTRIES];
  const int64_t states = (batch * CHANNELS + channel) * ENTRIES;
#pragma unroll
  for (int i = 0; i < ENTRIES; ++i) {
    rate[i] = -expf(static_cast<float>(rates[channel * ENTRIES + i]));
#if STATE
    s[i] = state[states + i];
#else
    s[i] = 0.0f;
#endif
  }
  const float passes = static_cast<float>(passing[channel]);
  for (int t = 0; t < tokens; ++t) {
    const int64_t token = batch * tokens + t;
    const int64_t at = token * CHANNELS + channel;
    const float value = static_cast<float>(x[at]);
    const float raw = static_cast<float>(steps[at]);
    float size = fmaxf(raw, 0.0f) + log1pf(expf(-fabsf(raw)));
#if OWN
    size = own[token] ? size : 0.0f;
#endif
    const float change = size * value;
    float result = passes * value;
#pragma unroll
    for (int i = 0; i < ENTRIES; ++i) {
      s[i] = s[i] * expf(rate[i] * size) + change * static_cast<float>(entering[token * ENTRIES + i]);
      result += s[i] * static_cast<float>(reading[token * ENTRIES + i]);
    }
    const float opened = static_cast<float>(gate[at]);
    y[at] = static_cast<T>(result * opened / (1.0f + expf(-opened)));
  }
#pragma unroll
  for (int i = 0; i < ENTRIES; ++i) {
    next[states + i] = s[i];
  }
)";

} // namespace mlxlm::cuda
