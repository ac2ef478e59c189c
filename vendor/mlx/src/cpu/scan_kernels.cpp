// Mamba's scan, for one instruction set.
#include "cpu/scan.h"

#include "cpu/math.h"
#include "cpu/vectors.h"

namespace mlxlm::cpu::MLXLM_ISA {
namespace {

inline F get_at(const TokenRows& rows, int64_t row, int64_t token, int64_t i, int count) {
  return get(rows.type, rows.data, row * rows.batch_step + token * rows.token_step + i, count);
}

// Step sizes of some channels.
inline F steps_of(const Scan& s, int64_t row, int64_t token, int64_t i, int count) {
  bool own = !s.own || s.own[row * s.tokens + token];
  return own ? softplus(get_at(s.steps, row, token, i, count)) : F{};
}

inline void put_scanned(const Scan& s, int64_t row, int64_t token, int64_t i, F x, F read, int count) {
  F y = read + get(s.passing.type, s.passing.data, i, count) * x;
  if (s.gate.data) {
    F gate = get_at(s.gate, row, token, i, count);
    y = y * gate * sigmoid(gate);
  }
  put(s.type, s.y, (row * s.tokens + token) * s.channels + i, y, count);
}

// One token: a channel's state is a vector as it lies.
void scan_one(const Scan& s, int64_t row, int64_t from, int64_t to, float* buffer) {
  int64_t width = padded(s.dims);
  float* b = buffer;
  float* c = b + width;
  auto widened = [&](const TokenRows& rows, float* out) {
    for_vectors(0, s.dims, [&](int64_t i, int count) { put(Float::f32, out, i, get_at(rows, row, 0, i, count), count); });
  };
  widened(s.entering, b);
  widened(s.reading, c);
  for_vectors(from, to, [&](int64_t first, int channels) {
    F x = get_at(s.x, row, 0, first, channels);
    F steps = steps_of(s, row, 0, first, channels);
    F entering = steps * x;
    F read = {};
    for (int lane = 0; lane < channels; ++lane) {
      int64_t at = (row * s.channels + first + lane) * s.dims;
      F total = {};
      for_vectors(0, s.dims, [&](int64_t i, int count) {
        F rates = exp(get(s.rates.type, s.rates.data, (first + lane) * s.dims + i, count));
        F fade = exp(-rates * steps[lane]);
        F next = get(Float::f32, s.state, at + i, count) * fade + get(Float::f32, b, i, count) * entering[lane];
        put(Float::f32, s.state, at + i, next, count);
        total += next * get(Float::f32, c, i, count);
      });
      read[lane] = sum(total);
    }
    put_scanned(s, row, 0, first, x, read, channels);
  });
}

// Many tokens: a vector holds one entry of `lanes` channels, so that nothing is summed across it.
void scan_many(const Scan& s, int64_t row, int64_t from, int64_t to, float* buffer) {
  int64_t width = padded(to - from);
  float* rates = buffer;
  float* states = rates + s.dims * width;
  float* b = states + s.dims * width;
  float* c = b + padded(s.dims);
  float* state = s.state + (row * s.channels + from) * s.dims;
  for (int64_t channel = 0; channel < to - from; ++channel) {
    for_vectors(0, s.dims, [&](int64_t i, int count) {
      F values = -exp(get(s.rates.type, s.rates.data, (from + channel) * s.dims + i, count));
      for (int lane = 0; lane < count; ++lane) {
        rates[(i + lane) * width + channel] = values[lane];
        states[(i + lane) * width + channel] = state[channel * s.dims + i + lane];
      }
    });
  }
  for (int64_t token = 0; token < s.tokens; ++token) {
    for_vectors(0, s.dims, [&](int64_t i, int count) {
      put(Float::f32, b, i, get_at(s.entering, row, token, i, count), count);
      put(Float::f32, c, i, get_at(s.reading, row, token, i, count), count);
    });
    for_vectors(from, to, [&](int64_t first, int channels) {
      F x = get_at(s.x, row, token, first, channels);
      F steps = steps_of(s, row, token, first, channels);
      F entering = steps * x;
      F read = {};
      for (int64_t i = 0; i < s.dims; ++i) {
        int64_t at = i * width + first - from;
        F fade = exp(get(Float::f32, rates, at, channels) * steps);
        F next = get(Float::f32, states, at, channels) * fade + entering * b[i];
        put(Float::f32, states, at, next, channels);
        read += next * c[i];
      }
      put_scanned(s, row, token, first, x, read, channels);
    });
  }
  for (int64_t channel = 0; channel < to - from; ++channel) {
    for (int64_t i = 0; i < s.dims; ++i) {
      state[channel * s.dims + i] = states[i * width + channel];
    }
  }
}

void scan(const Scan& s, int64_t row, int64_t from, int64_t to, float* buffer) {
  s.tokens == 1 ? scan_one(s, row, from, to, buffer) : scan_many(s, row, from, to, buffer);
}

} // namespace

const ScanKernels scan_kernels = {scan};

} // namespace mlxlm::cpu::MLXLM_ISA
