// Cuts the work of recurrent layers into tasks and hands them to the threads.
#include "cpu/recurrence.h"

#include <algorithm>
#include <cmath>

#include "cpu/thread_pool.h"

namespace mlxlm::cpu {
namespace {

const RecurrenceKernels& kernels() {
  return MLXLM_OF_ISA(recurrence_kernels);
}

// Tokens of a head that are made ready together: their keys and queries stay in the first cache.
constexpr int64_t tokens_at_once = 32;

const void* at(const TokenRows& rows, int64_t row, int64_t token, int64_t column) {
  int64_t size = rows.type == Float::f32 ? 4 : 2;
  return static_cast<const char*>(rows.data) + (row * rows.batch_step + token * rows.token_step + column) * size;
}

void* at(void* out, Float type, int64_t i) {
  return static_cast<char*>(out) + i * (type == Float::f32 ? 4 : 2);
}

float number(Numbers numbers, int64_t i) {
  float value;
  TokenRows rows = {numbers.type, numbers.data, 0, 0};
  kernels().gather(rows, 0, 0, 1, i, &value);
  return value;
}

// A thread's memory for tokens_at_once tokens, cut into pieces.
class Pieces {
 public:
  explicit Pieces(int64_t numbers) : next_(static_cast<float*>(scratch(0, numbers * sizeof(float)))) {}
  float* take(int64_t numbers) {
    float* piece = next_;
    next_ += padded(numbers);
    return piece;
  }

 private:
  float* next_;
};

// Calls body(first, count) for all tokens, some at a time.
template <class Body>
void for_tokens(int64_t tokens, Body&& body) {
  for (int64_t first = 0; first < tokens; first += tokens_at_once) {
    body(first, std::min(tokens_at_once, tokens - first));
  }
}

// What fades nothing and writes nothing where a token is none of a row's own.
void leave_out(const bool* own, int64_t count, float* fades, int64_t fades_each, float* strengths, float* values,
               int64_t rows) {
  for (int64_t t = 0; own && t < count; ++t) {
    if (own[t]) {
      continue;
    }
    std::fill_n(fades + t * fades_each, fades_each, 1.0f);
    if (strengths) {
      strengths[t] = 0;
    }
    if (values) {
      std::fill_n(values + t * rows, rows, 0.0f);
    }
  }
}

} // namespace

void run(const Convolution& c) {
  constexpr int64_t channels_at_once = 512;
  constexpr int64_t tokens_at_once = 32;
  int64_t across = (c.channels + channels_at_once - 1) / channels_at_once;
  int64_t along = (c.tokens + tokens_at_once - 1) / tokens_at_once;
  auto& kernels = cpu::kernels();
  loop(c.batch * c.tokens * c.channels * (c.taps + 8), c.batch * across * along, [&](int64_t task) {
    int64_t row = task / (across * along);
    int64_t from = task % across * channels_at_once;
    int64_t to = std::min(from + channels_at_once, c.channels);
    int64_t first = task / across % along * tokens_at_once;
    auto taps = static_cast<float*>(scratch(0, c.taps * (to - from) * sizeof(float)));
    kernels.convolve(c, row, first, std::min(first + tokens_at_once, c.tokens), from, to, taps);
  });
  for (int64_t row = 0; row < c.batch; ++row) {
    kernels.look_back(c, row);
  }
}

void run(const DeltaHeads& h) {
  auto& kernels = cpu::kernels();
  int64_t keys = padded(h.key_dims);
  constexpr int64_t most = tokens_at_once;
  int64_t room = most * (2 * keys + 2 * padded(h.value_dims)) + 2 * padded(most);
  loop(h.batch * h.tokens * h.value_heads * h.key_dims * h.value_dims, h.batch * h.value_heads, [&](int64_t task) {
    int64_t row = task / h.value_heads;
    int64_t head = task % h.value_heads;
    int64_t key_head = head / (h.value_heads / h.key_heads);
    float rate = -std::exp(number(h.rates, head));
    float bias = number(h.decay_bias, head);
    Pieces pieces(room);
    float* q = pieces.take(most * keys);
    float* k = pieces.take(most * keys);
    float* v = pieces.take(most * h.value_dims);
    float* y = pieces.take(most * h.value_dims);
    float* fades = pieces.take(most);
    float* strengths = pieces.take(most);
    for_tokens(h.tokens, [&](int64_t first, int64_t count) {
      int64_t all_keys = h.key_heads * h.key_dims;
      for (int64_t t = 0; t < count; ++t) {
        auto of = [&](int64_t column) { return at(h.mixed, row, first + t, column); };
        auto type = h.mixed.type;
        float length = 1 / std::sqrt(static_cast<float>(h.key_dims));
        kernels.stretch(type, of(key_head * h.key_dims), h.key_dims, keys, length, q + t * keys);
        kernels.stretch(type, of(all_keys + key_head * h.key_dims), h.key_dims, keys, 1, k + t * keys);
        kernels.widen(type, of(2 * all_keys + head * h.value_dims), h.value_dims, h.value_dims, v + t * h.value_dims);
      }
      kernels.gather(h.strength, row, first, count, head, strengths);
      kernels.gather(h.decay, row, first, count, head, fades);
      for (int64_t t = 0; t < count; ++t) {
        strengths[t] = -strengths[t];
        fades[t] += bias;
      }
      kernels.exponentiate(strengths, count, strengths);
      kernels.soften(fades, count, fades);
      for (int64_t t = 0; t < count; ++t) {
        strengths[t] = 1 / (1 + strengths[t]);
        fades[t] *= rate;
      }
      kernels.exponentiate(fades, count, fades);
      leave_out(h.own ? h.own + row * h.tokens + first : nullptr, count, fades, 1, strengths, nullptr, 0);
      Tokens tokens = {};
      tokens.rule = Rule::delta;
      tokens.count = count;
      tokens.dims = h.key_dims;
      tokens.rows = h.value_dims;
      tokens.fades = fades;
      tokens.keys = k;
      tokens.queries = q;
      tokens.strengths = strengths;
      tokens.values = v;
      tokens.y = y;
      tokens.state = h.state + task * h.value_dims * h.key_dims;
      kernels.advance(tokens);
      for (int64_t t = 0; t < count; ++t) {
        int64_t column = head * h.value_dims;
        Numbers gate = {h.gate.type, at(h.gate, row, first + t, column)};
        int64_t to = ((row * h.tokens + first + t) * h.value_heads) * h.value_dims + column;
        kernels.finish(y + t * h.value_dims, h.value_dims, h.weight, h.eps, gate, h.type, at(h.out, h.type, to));
      }
    });
  });
}

void run(const RuleHeads& h) {
  auto& kernels = cpu::kernels();
  int64_t keys = padded(h.key_dims);
  constexpr int64_t most = tokens_at_once;
  int64_t room = most * (5 * keys + 2 * padded(h.value_dims)) + 2 * padded(most);
  loop(h.batch * h.tokens * h.value_heads * h.key_dims * h.value_dims, h.batch * h.value_heads, [&](int64_t task) {
    int64_t row = task / h.value_heads;
    int64_t head = task % h.value_heads;
    int64_t key_head = head / (h.value_heads / h.key_heads);
    Pieces pieces(room);
    float* q = pieces.take(most * keys);
    float* k = pieces.take(most * keys);
    float* a = pieces.take(most * keys);
    float* b = pieces.take(most * keys);
    float* fades = pieces.take(most * keys);
    float* v = pieces.take(most * h.value_dims);
    float* y = pieces.take(most * h.value_dims);
    float* strengths = pieces.take(most);
    for_tokens(h.tokens, [&](int64_t first, int64_t count) {
      auto ready = [&](const TokenRows& rows, int64_t column, float length, float* out) {
        for (int64_t t = 0; t < count; ++t) {
          auto from = at(rows, row, first + t, column);
          if (length > 0) {
            kernels.stretch(rows.type, from, h.key_dims, keys, length, out + t * keys);
          } else {
            kernels.widen(rows.type, from, h.key_dims, keys, out + t * keys);
          }
        }
      };
      ready(h.queries, key_head * h.key_dims, h.query_length, q);
      ready(h.keys, key_head * h.key_dims, h.key_length, k);
      if (h.readers.data) {
        ready(h.readers, key_head * h.key_dims, 0, a);
      }
      if (h.changes.data) {
        ready(h.changes, key_head * h.key_dims, 0, b);
      }
      for (int64_t t = 0; t < count; ++t) {
        auto from = at(h.values, row, first + t, head * h.value_dims);
        kernels.widen(h.values.type, from, h.value_dims, h.value_dims, v + t * h.value_dims);
      }
      if (h.strengths.data) {
        kernels.gather(h.strengths, row, first, count, head, strengths);
      }
      if (h.by_channel) {
        ready(h.decay, head * h.key_dims, 0, fades);
      } else {
        kernels.gather(h.decay, row, first, count, head, fades);
      }
      int64_t fades_each = h.by_channel ? keys : 1;
      kernels.exponentiate(fades, count * fades_each, fades);
      leave_out(
          h.own ? h.own + row * h.tokens + first : nullptr, count, fades, fades_each,
          h.strengths.data ? strengths : nullptr, v, h.value_dims);
      for (int64_t t = 0; h.own && h.readers.data && t < count; ++t) {
        if (!h.own[row * h.tokens + first + t]) {
          std::fill_n(a + t * keys, keys, 0.0f);
        }
      }
      Tokens tokens = {};
      tokens.rule = h.readers.data ? Rule::general : h.strengths.data ? Rule::delta : Rule::write;
      tokens.by_channel = h.by_channel;
      tokens.count = count;
      tokens.dims = h.key_dims;
      tokens.rows = h.value_dims;
      tokens.fades = fades;
      tokens.keys = k;
      tokens.queries = q;
      tokens.readers = a;
      tokens.changes = h.changes.data ? b : k;
      tokens.strengths = strengths;
      tokens.values = v;
      tokens.y = y;
      tokens.state = h.state + task * h.value_dims * h.key_dims;
      kernels.advance(tokens);
      for (int64_t t = 0; t < count; ++t) {
        int64_t to = ((row * h.tokens + first + t) * h.value_heads + head) * h.value_dims;
        kernels.finish(y + t * h.value_dims, h.value_dims, {}, 0, {}, h.type, at(h.out, h.type, to));
      }
    });
  });
}

void run(const StateSpaceHeads& h) {
  auto& kernels = cpu::kernels();
  int64_t width = padded(h.state_dims);
  constexpr int64_t most = tokens_at_once;
  int64_t room = most * (2 * width + 3 * padded(h.head_dims)) + 2 * padded(most);
  loop(h.batch * h.tokens * h.heads * h.head_dims * h.state_dims, h.batch * h.heads, [&](int64_t task) {
    int64_t row = task / h.heads;
    int64_t head = task % h.heads;
    int64_t group = head / (h.heads / h.groups);
    float rate = -std::exp(number(h.rates, head));
    float passing = number(h.passing, head);
    float bias = number(h.step_bias, head);
    Pieces pieces(room);
    float* b = pieces.take(most * width);
    float* c = pieces.take(most * width);
    float* x = pieces.take(most * h.head_dims);
    float* entering = pieces.take(most * h.head_dims);
    float* y = pieces.take(most * h.head_dims);
    float* steps = pieces.take(most);
    float* fades = pieces.take(most);
    for_tokens(h.tokens, [&](int64_t first, int64_t count) {
      kernels.gather(h.steps, row, first, count, head, steps);
      for (int64_t t = 0; t < count; ++t) {
        steps[t] += bias;
      }
      kernels.soften(steps, count, steps);
      const bool* own = h.own ? h.own + row * h.tokens + first : nullptr;
      for (int64_t t = 0; t < count; ++t) {
        steps[t] = own && !own[t] ? 0 : std::min(std::max(steps[t], h.least_step), h.most_step);
        fades[t] = rate * steps[t];
      }
      kernels.exponentiate(fades, count, fades);
      int64_t inner = h.heads * h.head_dims;
      for (int64_t t = 0; t < count; ++t) {
        auto of = [&](int64_t column) { return at(h.mixed, row, first + t, column); };
        auto type = h.mixed.type;
        float* mine = x + t * h.head_dims;
        kernels.widen(type, of(head * h.head_dims), h.head_dims, h.head_dims, mine);
        kernels.widen(type, of(inner + group * h.state_dims), h.state_dims, width, b + t * width);
        kernels.widen(type, of(inner + (h.groups + group) * h.state_dims), h.state_dims, width, c + t * width);
        for (int64_t i = 0; i < h.head_dims; ++i) {
          entering[t * h.head_dims + i] = mine[i] * steps[t];
        }
      }
      Tokens tokens = {};
      tokens.rule = Rule::write;
      tokens.count = count;
      tokens.dims = h.state_dims;
      tokens.rows = h.head_dims;
      tokens.fades = fades;
      tokens.keys = b;
      tokens.queries = c;
      tokens.values = entering;
      tokens.y = y;
      tokens.state = h.state + task * h.head_dims * h.state_dims;
      kernels.advance(tokens);
      for (int64_t t = 0; t < count; ++t) {
        float* out = y + t * h.head_dims;
        for (int64_t i = 0; i < h.head_dims; ++i) {
          out[i] += passing * x[t * h.head_dims + i];
        }
        int64_t column = head * h.head_dims;
        Numbers gate = {};
        if (h.gate.data) {
          gate = {h.gate.type, at(h.gate, row, first + t, column)};
        }
        int64_t to = (row * h.tokens + first + t) * inner + column;
        kernels.finish(out, h.head_dims, {}, 0, gate, h.type, at(h.out, h.type, to));
      }
    });
  });
}

} // namespace mlxlm::cpu
