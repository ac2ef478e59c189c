// Short convolutions and recurrent states, for one instruction set.
#include "cpu/recurrence.h"

#include "cpu/math.h"
#include "cpu/typed.h"
#include "cpu/vectors.h"

namespace mlxlm::cpu::MLXLM_ISA {
namespace {

// As it will be read again.
template <Float type>
inline F rounded(F value) {
  if constexpr (type == Float::bf16) {
    return widen_bf16(narrow_bf16(value));
  } else if constexpr (type == Float::f16) {
    return widen_f16(narrow_f16(value));
  } else {
    return value;
  }
}

// --- convolution

// What enters at a token, which may lie before the first.
template <Float type>
inline F entering(const Convolution& c, int64_t row, int64_t token, int64_t i, int count) {
  if (token < 0) {
    int64_t at = (row * (c.taps - 1) + token + c.taps - 1) * c.channels;
    return c.before ? get(type, c.before, at + i, count) : F{};
  }
  if (c.own && !c.own[row * c.tokens + token]) {
    return F{};
  }
  F value = get(type, c.x.data, row * c.x.batch_step + token * c.x.token_step + i, count);
  if (!c.opening.data) {
    return value;
  }
  auto& o = c.opening;
  return rounded<type>(value * get(type, o.data, row * o.batch_step + token * o.token_step + i, count));
}

// Weights (channels, taps) as (taps, channels).
void turn(const Convolution& c, int64_t from, int64_t to, float* taps) {
  int64_t width = to - from;
  int64_t channel = 0;
  int64_t tap = 0;
  for_vectors(from * c.taps, to * c.taps, [&](int64_t i, int count) {
    F values = get(c.weight.type, c.weight.data, i, count);
    for (int lane = 0; lane < count; ++lane) {
      taps[tap * width + channel] = values[lane];
      if (++tap == c.taps) {
        tap = 0;
        ++channel;
      }
    }
  });
}

template <int... i>
inline F every_second(F a, F b, Indices<i...>) {
  return __builtin_shufflevector(a, b, (2 * i)...);
}
template <int... i>
inline F every_other(F a, F b, Indices<i...>) {
  return __builtin_shufflevector(a, b, (2 * i + 1)...);
}

// The same for four taps and whole vectors of channels.
void turn_four(const Convolution& c, int64_t from, int64_t to, float* taps) {
  using All = typename FirstN<lanes>::type;
  int64_t width = to - from;
  for (int64_t i = 0; i < width; i += lanes) {
    F v[4];
    for (int j = 0; j < 4; ++j) {
      v[j] = load_as(c.weight.type, c.weight.data, (from + i) * 4 + j * lanes);
    }
    F even_low = every_second(v[0], v[1], All());
    F even_high = every_second(v[2], v[3], All());
    F odd_low = every_other(v[0], v[1], All());
    F odd_high = every_other(v[2], v[3], All());
    store(taps + i, every_second(even_low, even_high, All()));
    store(taps + width + i, every_second(odd_low, odd_high, All()));
    store(taps + 2 * width + i, every_other(even_low, even_high, All()));
    store(taps + 3 * width + i, every_other(odd_low, odd_high, All()));
  }
}

void convolve(const Convolution& c, int64_t row, int64_t first, int64_t last, int64_t from, int64_t to, float* taps) {
  int64_t width = to - from;
  c.taps == 4 && width % lanes == 0 ? turn_four(c, from, to, taps) : turn(c, from, to, taps);
  with_type(c.type, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    for (int64_t token = first; token < last; ++token) {
      int64_t out = (row * c.tokens + token) * c.channels;
      for_vectors(from, to, [&](int64_t i, int count) {
        F sum = c.bias.data ? get(c.bias.type, c.bias.data, i, count) : F{};
        for (int64_t j = 0; j < c.taps; ++j) {
          F weight = get(Float::f32, taps, j * width + i - from, count);
          sum += weight * entering<type>(c, row, token - c.taps + 1 + j, i, count);
        }
        if (c.silu) {
          sum = sum * sigmoid(sum);
        }
        if (c.gate.data) {
          sum = sum * get(type, c.gate.data, row * c.gate.batch_step + token * c.gate.token_step + i, count);
        }
        put(type, c.y, out + i, sum, count);
      });
    }
  });
}

void look_back(const Convolution& c, int64_t row) {
  int64_t kept = c.taps - 1;
  int64_t own = c.lengths ? c.lengths[row] : c.tokens;
  with_type(c.type, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    for (int64_t j = 0; j < kept; ++j) {
      int64_t to = (row * kept + j) * c.channels;
      for_vectors(0, c.channels, [&](int64_t i, int count) {
        put(type, c.after, to + i, entering<type>(c, row, own - kept + j, i, count), count);
      });
    }
  });
}

// --- what goes into a state

void widen(Float type, const void* x, int64_t count, int64_t width, float* out) {
  for_vectors(0, count, [&](int64_t i, int some) { put(Float::f32, out, i, get(type, x, i, some), some); });
  for (int64_t i = count; i < width; ++i) {
    out[i] = 0;
  }
}

void stretch(Float type, const void* x, int64_t count, int64_t width, float length, float* out) {
  F squares = {};
  for_vectors(0, count, [&](int64_t i, int some) {
    F value = get(type, x, i, some);
    squares += value * value;
  });
  float factor = length / __builtin_sqrtf(sum(squares) + 1e-6f);
  for_vectors(0, count, [&](int64_t i, int some) { put(Float::f32, out, i, get(type, x, i, some) * factor, some); });
  for (int64_t i = count; i < width; ++i) {
    out[i] = 0;
  }
}

void exponentiate(const float* x, int64_t count, float* out) {
  for_vectors(0, count, [&](int64_t i, int some) {
    put(Float::f32, out, i, exp(get(Float::f32, x, i, some)), some);
  });
}

void soften(const float* x, int64_t count, float* out) {
  for_vectors(0, count, [&](int64_t i, int some) {
    put(Float::f32, out, i, softplus(get(Float::f32, x, i, some)), some);
  });
}

void gather(const TokenRows& rows, int64_t row, int64_t token, int64_t count, int64_t column, float* out) {
  for (int64_t t = 0; t < count; ++t) {
    int64_t at = row * rows.batch_step + (token + t) * rows.token_step + column;
    out[t] = load_some_as(rows.type, rows.data, at, 1)[0];
  }
}

// --- the state

inline float dot(const float* a, const float* b, int64_t width) {
  F total = {};
  for (int64_t i = 0; i < width; i += lanes) {
    total += load(a + i) * load(b + i);
  }
  return sum(total);
}

// What a token's y has of itself: Σ k q, and Σ b q.
struct Overlap {
  float keys;
  float changes;
};

// Tokens whose rows of keys the first cache holds.
constexpr int64_t most_tokens = 64;

// Both sums of each row, over all lanes: those with the readers, then those with the queries.
template <Rule rule, int R>
inline void sums_of_rows(const F (&found)[R], const F (&read)[R], float (&out)[2 * R]) {
  if constexpr (R == 2 && rule == Rule::write) {
    F sums = sums_of<2>({read[0], read[1]});
    out[2] = sums[0];
    out[3] = sums[1];
  } else if constexpr (R == 2) {
    F sums = sums_of<4>({found[0], found[1], read[0], read[1]});
    for (int i = 0; i < 4; ++i) {
      out[i] = sums[i];
    }
  } else {
    for (int r = 0; r < R; ++r) {
      out[r] = rule == Rule::write ? 0 : sum(found[r]);
      out[R + r] = sum(read[r]);
    }
  }
}

// R rows of N vectors, held in registers over all tokens. The sum for y is taken of the faded state, beside that for the
// change; the change's own share is added behind.
template <int N, int R, Rule rule, bool by_channel>
inline void advance_rows(const Tokens& t, const Overlap* overlaps, int64_t row, int64_t width) {
  F s[R][N];
  int tail = static_cast<int>(t.dims - (N - 1) * lanes);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) {
      s[r][i] = get(Float::f32, t.state + (row + r) * t.dims, i * lanes, i == N - 1 ? tail : lanes);
    }
  }
  for (int64_t token = 0; token < t.count; ++token) {
    const float* k = t.keys + token * width;
    const float* q = t.queries + token * width;
    const float* a = rule == Rule::general ? t.readers + token * width : k;
    const float* b = rule == Rule::general ? t.changes + token * width : k;
    F found[R] = {};
    F read[R] = {};
    F fade = by_channel ? F{} : splat(t.fades[token]);
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) {
      if constexpr (by_channel) {
        fade = load(t.fades + token * width + i * lanes);
      }
      F queried = load(q + i * lanes);
      F reader = rule == Rule::write ? F{} : load(a + i * lanes);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        s[r][i] *= fade;
        read[r] += s[r][i] * queried;
        if constexpr (rule != Rule::write) {
          found[r] += s[r][i] * reader;
        }
      }
    }
    float sums[2 * R] = {};
    sums_of_rows<rule>(found, read, sums);
    const float* values = t.values + token * t.rows + row;
    float* y = t.y + token * t.rows + row;
    F written[R];
    F changed[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      float value = rule == Rule::delta ? t.strengths[token] * (values[r] - sums[r]) : values[r];
      y[r] = sums[R + r] + value * overlaps[token].keys;
      if constexpr (rule == Rule::general) {
        y[r] += sums[r] * overlaps[token].changes;
        changed[r] = splat(sums[r]);
      }
      written[r] = splat(value);
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) {
      F key = load(k + i * lanes);
      F change = rule == Rule::general ? load(b + i * lanes) : F{};
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        s[r][i] += written[r] * key;
        if constexpr (rule == Rule::general) {
          s[r][i] += changed[r] * change;
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) {
      put(Float::f32, t.state + (row + r) * t.dims, i * lanes, s[r][i], i == N - 1 ? tail : lanes);
    }
  }
}

// One row of any length, held in the first cache.
template <Rule rule, bool by_channel>
void advance_long_row(const Tokens& t, const Overlap* overlaps, int64_t row, int64_t width) {
  float* state = t.state + row * t.dims;
  for (int64_t token = 0; token < t.count; ++token) {
    const float* k = t.keys + token * width;
    const float* q = t.queries + token * width;
    const float* a = rule == Rule::general ? t.readers + token * width : k;
    const float* b = rule == Rule::general ? t.changes + token * width : k;
    F found = {};
    F read = {};
    for_vectors(0, t.dims, [&](int64_t i, int count) {
      F fade = by_channel ? load(t.fades + token * width + i) : splat(t.fades[token]);
      F faded = get(Float::f32, state, i, count) * fade;
      put(Float::f32, state, i, faded, count);
      read += faded * load(q + i);
      if constexpr (rule != Rule::write) {
        found += faded * load(a + i);
      }
    });
    float value = t.values[token * t.rows + row];
    float was = rule == Rule::write ? 0 : sum(found);
    if constexpr (rule == Rule::delta) {
      value = t.strengths[token] * (value - was);
    }
    float y = sum(read) + value * overlaps[token].keys;
    if constexpr (rule == Rule::general) {
      y += was * overlaps[token].changes;
    }
    t.y[token * t.rows + row] = y;
    for_vectors(0, t.dims, [&](int64_t i, int count) {
      F next = get(Float::f32, state, i, count) + value * load(k + i);
      if constexpr (rule == Rule::general) {
        next += was * load(b + i);
      }
      put(Float::f32, state, i, next, count);
    });
  }
}

// All rows; those in registers where a key has N vectors.
template <int N, Rule rule, bool by_channel>
inline void advance_all(const Tokens& t, const Overlap* overlaps, int64_t width) {
  int64_t row = 0;
  for (; row + 2 <= t.rows; row += 2) {
    advance_rows<N, 2, rule, by_channel>(t, overlaps, row, width);
  }
  if (row < t.rows) {
    advance_rows<N, 1, rule, by_channel>(t, overlaps, row, width);
  }
}

template <Rule rule, bool by_channel>
void advance_by(const Tokens& t, const Overlap* overlaps, int64_t width) {
  switch ((t.dims + lanes - 1) / lanes) {
    case 1:
      return advance_all<1, rule, by_channel>(t, overlaps, width);
    case 2:
      return advance_all<2, rule, by_channel>(t, overlaps, width);
    case 4:
      return advance_all<4, rule, by_channel>(t, overlaps, width);
    case 8:
      return advance_all<8, rule, by_channel>(t, overlaps, width);
    default:
      for (int64_t row = 0; row < t.rows; ++row) {
        advance_long_row<rule, by_channel>(t, overlaps, row, width);
      }
  }
}

template <Rule rule>
void advance_as(const Tokens& t, const Overlap* overlaps, int64_t width) {
  t.by_channel ? advance_by<rule, true>(t, overlaps, width) : advance_by<rule, false>(t, overlaps, width);
}

void advance(const Tokens& t) {
  int64_t width = padded(t.dims);
  Overlap overlaps[most_tokens];
  for (int64_t token = 0; token < t.count; ++token) {
    const float* q = t.queries + token * width;
    overlaps[token].keys = dot(t.keys + token * width, q, width);
    overlaps[token].changes = t.rule == Rule::general ? dot(t.changes + token * width, q, width) : 0;
  }
  switch (t.rule) {
    case Rule::write:
      return advance_as<Rule::write>(t, overlaps, width);
    case Rule::delta:
      return advance_as<Rule::delta>(t, overlaps, width);
    case Rule::general:
      return advance_as<Rule::general>(t, overlaps, width);
  }
}

// --- what comes out

void finish(const float* x, int64_t count, Numbers weight, float eps, Numbers gate, Float type, void* out) {
  float factor = 1;
  if (weight.data) {
    F squares = {};
    for_vectors(0, count, [&](int64_t i, int some) {
      F value = get(Float::f32, x, i, some);
      squares += value * value;
    });
    factor = 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(count) + eps);
  }
  for_vectors(0, count, [&](int64_t i, int some) {
    F value = get(Float::f32, x, i, some) * factor;
    if (weight.data) {
      value = value * get(weight.type, weight.data, i, some);
    }
    if (gate.data) {
      F opened = get(gate.type, gate.data, i, some);
      value = value * opened * sigmoid(opened);
    }
    put(type, out, i, value, some);
  });
}

} // namespace

const RecurrenceKernels recurrence_kernels = {
    convolve, look_back, widen, stretch, gather, exponentiate, soften, advance, finish};

} // namespace mlxlm::cpu::MLXLM_ISA
