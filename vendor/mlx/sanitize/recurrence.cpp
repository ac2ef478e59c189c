#include "cpu/recurrence.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "checks.h"
#include "cpu/scan.h"
#include "memory.h"
#include "numbers.h"

namespace mlxlm::check {
namespace {

using cpu::Numbers;
using cpu::Rule;
using cpu::TokenRows;

constexpr Float types[] = {Float::f32, Float::f16, Float::bf16};

// Numbers in memory of their own, and as doubles.
struct Tensor {
  Tensor(Float of, int64_t count, Random& random, double scale = 1) : type(of), memory(count * size_of(of)), values(count) {
    for (int64_t i = 0; i < count; ++i) {
      values[i] = rounded(type, random.number() * scale);
      put(type, memory.data(), i, values[i]);
    }
  }
  Numbers numbers() const {
    return {type, memory.data()};
  }
  // (batch, tokens, width) without gaps.
  TokenRows rows(int64_t tokens, int64_t width) const {
    return {type, memory.data(), tokens * width, width};
  }

  Float type;
  Exact memory;
  std::vector<double> values;
};

// What a kernel fills.
struct Result {
  Result(Float of, int64_t numbers) : type(of), count(numbers), memory(numbers * size_of(of)) {}

  void expect(const std::vector<double>& wanted, double tolerance, const std::string& what) const {
    double most = 1;
    for (double value : wanted) {
      most = std::max(most, std::abs(value));
    }
    for (int64_t i = 0; i < count; ++i) {
      expect_near(get(type, memory.data(), i), wanted[i], tolerance * most, what + ", " + std::to_string(i));
    }
  }

  Float type;
  int64_t count;
  Exact memory;
};

// Sums of some hundred products in float32, and one rounding.
double tolerance_of(Float type) {
  return type == Float::f32 ? 2e-5 : 2 * precision_of(type);
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

struct Own {
  Own(int64_t count, Random& random) : memory(count) {
    for (int64_t i = 0; i < count; ++i) {
      memory.data<bool>()[i] = random.below(4) > 0;
    }
  }
  bool operator[](int64_t i) const {
    return memory.data<bool>()[i];
  }
  Exact memory;
};

struct State {
  State(int64_t count, Random& random) : memory(count * 4), values(count) {
    for (int64_t i = 0; i < count; ++i) {
      values[i] = random.number();
      memory.data<float>()[i] = static_cast<float>(values[i]);
    }
  }
  void expect(const std::vector<double>& wanted, const std::string& what) const {
    for (size_t i = 0; i < wanted.size(); ++i) {
      expect_near(memory.data<float>()[i], wanted[i], 1e-4 * (1 + std::abs(wanted[i])), what + ", " + std::to_string(i));
    }
  }
  Exact memory;
  std::vector<double> values;
};

void check_convolution(Float type, int64_t tokens, int64_t channels, int64_t taps, bool everything, Random& random) {
  constexpr int64_t batch = 2;
  int64_t count = batch * tokens * channels;
  Tensor x(type, count, random);
  Tensor opening(type, count, random);
  Tensor gate(type, count, random);
  Tensor before(type, batch * (taps - 1) * channels, random);
  Tensor weight(type, channels * taps, random, 0.5);
  Tensor bias(type, channels, random);
  Own own(batch * tokens, random);
  std::vector<int32_t> lengths = {static_cast<int32_t>(tokens), static_cast<int32_t>(tokens / 2)};
  Result y(type, count);
  Result after(type, batch * (taps - 1) * channels);
  cpu::Convolution c = {};
  c.batch = batch;
  c.tokens = tokens;
  c.channels = channels;
  c.taps = taps;
  c.type = type;
  c.x = x.rows(tokens, channels);
  c.weight = weight.numbers();
  c.y = y.memory.data();
  c.after = after.memory.data();
  c.silu = everything;
  if (everything) {
    c.opening = opening.rows(tokens, channels);
    c.gate = gate.rows(tokens, channels);
    c.before = before.memory.data();
    c.bias = bias.numbers();
    c.own = own.memory.data<bool>();
    c.lengths = lengths.data();
  }
  run(c);
  auto entering = [&](int64_t row, int64_t token, int64_t i) {
    if (token < 0) {
      return everything ? before.values[(row * (taps - 1) + token + taps - 1) * channels + i] : 0;
    }
    int64_t at = (row * tokens + token) * channels + i;
    if (!everything) {
      return x.values[at];
    }
    return own[row * tokens + token] ? rounded(type, x.values[at] * opening.values[at]) : 0;
  };
  std::vector<double> wanted;
  std::vector<double> kept;
  for (int64_t row = 0; row < batch; ++row) {
    for (int64_t token = 0; token < tokens; ++token) {
      for (int64_t i = 0; i < channels; ++i) {
        double sum = everything ? bias.values[i] : 0;
        for (int64_t j = 0; j < taps; ++j) {
          sum += weight.values[i * taps + j] * entering(row, token - taps + 1 + j, i);
        }
        wanted.push_back(everything ? sum * sigmoid(sum) * gate.values[(row * tokens + token) * channels + i] : sum);
      }
    }
    int64_t length = everything ? lengths[row] : tokens;
    for (int64_t j = 0; j < taps - 1; ++j) {
      for (int64_t i = 0; i < channels; ++i) {
        kept.push_back(entering(row, length - taps + 1 + j, i));
      }
    }
  }
  auto what = std::string("convolution of ") + std::to_string(channels) + " by " + std::to_string(taps) + " " + name_of(type);
  y.expect(wanted, tolerance_of(type), what);
  after.expect(kept, 0, what + ", kept");
}

// One head's tokens, one after the other: all in double precision.
struct Plain {
  Rule rule;
  int64_t dims;
  int64_t rows;
  double* state;

  void advance(
      const double* w, const double* k, const double* q, const double* a, const double* b, double strength,
      const double* v, double* y) {
    for (int64_t row = 0; row < rows; ++row) {
      double* s = state + row * dims;
      double found = 0;
      for (int64_t i = 0; i < dims; ++i) {
        s[i] *= w[i];
        found += s[i] * (rule == Rule::general ? a[i] : k[i]);
      }
      double written = rule == Rule::delta ? strength * (v[row] - found) : v[row];
      y[row] = 0;
      for (int64_t i = 0; i < dims; ++i) {
        s[i] += written * k[i] + (rule == Rule::general ? found * b[i] : 0);
        y[row] += s[i] * q[i];
      }
    }
  }
};

std::vector<double> stretched(const double* x, int64_t dims, double length) {
  double squares = 1e-6;
  for (int64_t i = 0; i < dims; ++i) {
    squares += x[i] * x[i];
  }
  std::vector<double> out(x, x + dims);
  for (double& value : out) {
    value *= length / std::sqrt(squares);
  }
  return out;
}

void check_rule(Float type, Rule rule, bool by_channel, int64_t tokens, int64_t dims, int64_t rows, Random& random) {
  constexpr int64_t batch = 2;
  constexpr int64_t key_heads = 2;
  int64_t heads = by_channel ? key_heads : 2 * key_heads;
  int64_t keys = key_heads * dims;
  double scale = 0.5 / std::sqrt(static_cast<double>(dims));
  Tensor q(type, batch * tokens * keys, random);
  Tensor k(type, batch * tokens * keys, random);
  Tensor a(type, batch * tokens * keys, random, scale);
  Tensor b(type, batch * tokens * keys, random, scale);
  Tensor v(type, batch * tokens * heads * rows, random);
  Tensor strength(type, batch * tokens * heads, random, 0.25);
  int64_t fades = by_channel ? dims : 1;
  Tensor decay(type, batch * tokens * heads * fades, random);
  for (size_t i = 0; i < decay.values.size(); ++i) {
    decay.values[i] = -std::abs(decay.values[i]);
    put(type, decay.memory.data(), i, decay.values[i]);
  }
  Own own(batch * tokens, random);
  State state(batch * heads * rows * dims, random);
  Result y(type, batch * tokens * heads * rows);
  cpu::RuleHeads h = {};
  h.batch = batch;
  h.tokens = tokens;
  h.key_heads = key_heads;
  h.value_heads = heads;
  h.key_dims = dims;
  h.value_dims = rows;
  h.queries = q.rows(tokens, keys);
  h.keys = k.rows(tokens, keys);
  h.values = v.rows(tokens, heads * rows);
  if (rule == Rule::general) {
    h.readers = a.rows(tokens, keys);
    h.changes = b.rows(tokens, keys);
  } else if (rule == Rule::delta) {
    h.strengths = strength.rows(tokens, heads);
  }
  h.decay = decay.rows(tokens, heads * fades);
  h.by_channel = by_channel;
  h.query_length = 0.5f;
  h.key_length = 1;
  h.own = own.memory.data<bool>();
  h.state = state.memory.data<float>();
  h.type = type;
  h.out = y.memory.data();
  run(h);
  std::vector<double> wanted(batch * tokens * heads * rows);
  auto states = state.values;
  for (int64_t row = 0; row < batch; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      Plain plain = {rule, dims, rows, states.data() + (row * heads + head) * rows * dims};
      for (int64_t t = 0; t < tokens; ++t) {
        int64_t token = row * tokens + t;
        int64_t key = token * keys + head / (heads / key_heads) * dims;
        const double* values = v.values.data() + (token * heads + head) * rows;
        std::vector<double> w(dims, 1.0);
        std::vector<double> nothing(std::max(dims, rows), 0.0);
        for (int64_t i = 0; own[token] && i < dims; ++i) {
          w[i] = std::exp(decay.values[(token * heads + head) * fades + (by_channel ? i : 0)]);
        }
        auto keyed = stretched(k.values.data() + key, dims, 1);
        auto queried = stretched(q.values.data() + key, dims, 0.5);
        plain.advance(
            w.data(), keyed.data(), queried.data(), own[token] ? a.values.data() + key : nothing.data(),
            b.values.data() + key, own[token] ? strength.values[token * heads + head] : 0,
            own[token] ? values : nothing.data(), wanted.data() + (token * heads + head) * rows);
      }
    }
  }
  auto what = std::string("rule ") + std::to_string(static_cast<int>(rule)) + " of " + std::to_string(dims) + " by " +
      std::to_string(rows) + ", " + std::to_string(tokens) + " tokens, " + name_of(type);
  y.expect(wanted, tolerance_of(type), what);
  state.expect(states, what + ", state");
}

void check_delta_heads(Float type, int64_t tokens, int64_t dims, int64_t rows, Random& random) {
  constexpr int64_t batch = 2;
  constexpr int64_t key_heads = 2;
  constexpr int64_t heads = 4;
  int64_t keys = key_heads * dims;
  int64_t width = 2 * keys + heads * rows;
  Tensor mixed(type, batch * tokens * width, random);
  Tensor gate(type, batch * tokens * heads * rows, random);
  Tensor strength(type, batch * tokens * heads, random);
  Tensor decay(type, batch * tokens * heads, random);
  Tensor rates(Float::f32, heads, random, 0.5);
  Tensor bias(type, heads, random);
  Tensor weight(type, rows, random);
  State state(batch * heads * rows * dims, random);
  Result out(type, batch * tokens * heads * rows);
  cpu::DeltaHeads h = {};
  h.batch = batch;
  h.tokens = tokens;
  h.key_heads = key_heads;
  h.value_heads = heads;
  h.key_dims = dims;
  h.value_dims = rows;
  h.mixed = mixed.rows(tokens, width);
  h.gate = gate.rows(tokens, heads * rows);
  h.strength = strength.rows(tokens, heads);
  h.decay = decay.rows(tokens, heads);
  h.rates = rates.numbers();
  h.decay_bias = bias.numbers();
  h.weight = weight.numbers();
  h.eps = 1e-5f;
  h.state = state.memory.data<float>();
  h.type = type;
  h.out = out.memory.data();
  run(h);
  std::vector<double> wanted(batch * tokens * heads * rows);
  auto states = state.values;
  for (int64_t row = 0; row < batch; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      Plain plain = {Rule::delta, dims, rows, states.data() + (row * heads + head) * rows * dims};
      for (int64_t t = 0; t < tokens; ++t) {
        int64_t token = row * tokens + t;
        const double* all = mixed.values.data() + token * width;
        auto q = stretched(all + head / 2 * dims, dims, 1 / std::sqrt(static_cast<double>(dims)));
        auto k = stretched(all + keys + head / 2 * dims, dims, 1);
        double fade = std::exp(
            -std::exp(rates.values[head]) * softplus(decay.values[token * heads + head] + bias.values[head]));
        std::vector<double> w(dims, fade);
        int64_t first = (token * heads + head) * rows;
        double* y = wanted.data() + first;
        plain.advance(
            w.data(), k.data(), q.data(), nullptr, nullptr, sigmoid(strength.values[token * heads + head]),
            all + 2 * keys + head * rows, y);
        double squares = 0;
        for (int64_t i = 0; i < rows; ++i) {
          squares += y[i] * y[i];
        }
        double factor = 1 / std::sqrt(squares / rows + 1e-5);
        for (int64_t i = 0; i < rows; ++i) {
          double g = gate.values[first + i];
          y[i] *= factor * weight.values[i] * g * sigmoid(g);
        }
      }
    }
  }
  auto what = std::string("gated delta of ") + std::to_string(dims) + " by " + std::to_string(rows) + " " + name_of(type);
  out.expect(wanted, 2 * tolerance_of(type), what);
  state.expect(states, what + ", state");
}

void check_state_space(Float type, int64_t tokens, int64_t dims, int64_t rows, Random& random) {
  constexpr int64_t batch = 2;
  constexpr int64_t groups = 2;
  constexpr int64_t heads = 4;
  int64_t inner = heads * rows;
  int64_t width = inner + 2 * groups * dims;
  Tensor mixed(type, batch * tokens * width, random, 0.5);
  Tensor gate(type, batch * tokens * inner, random);
  Tensor steps(type, batch * tokens * heads, random);
  Tensor rates(Float::f32, heads, random, 0.5);
  Tensor passing(type, heads, random);
  Tensor bias(type, heads, random);
  State state(batch * heads * rows * dims, random);
  Result out(type, batch * tokens * inner);
  cpu::StateSpaceHeads h = {};
  h.batch = batch;
  h.tokens = tokens;
  h.heads = heads;
  h.groups = groups;
  h.head_dims = rows;
  h.state_dims = dims;
  h.mixed = mixed.rows(tokens, width);
  h.steps = steps.rows(tokens, heads);
  h.gate = gate.rows(tokens, inner);
  h.rates = rates.numbers();
  h.passing = passing.numbers();
  h.step_bias = bias.numbers();
  h.least_step = 0.25f;
  h.most_step = 1.5f;
  h.state = state.memory.data<float>();
  h.type = type;
  h.out = out.memory.data();
  run(h);
  std::vector<double> wanted(batch * tokens * inner);
  auto states = state.values;
  for (int64_t row = 0; row < batch; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      Plain plain = {Rule::write, dims, rows, states.data() + (row * heads + head) * rows * dims};
      for (int64_t t = 0; t < tokens; ++t) {
        int64_t token = row * tokens + t;
        const double* all = mixed.values.data() + token * width;
        double step = std::clamp(softplus(steps.values[token * heads + head] + bias.values[head]), 0.25, 1.5);
        std::vector<double> w(dims, std::exp(-std::exp(rates.values[head]) * step));
        std::vector<double> entering(all + head * rows, all + (head + 1) * rows);
        for (double& value : entering) {
          value *= step;
        }
        const double* b = all + inner + head / 2 * dims;
        double* y = wanted.data() + token * inner + head * rows;
        plain.advance(w.data(), b, b + groups * dims, nullptr, nullptr, 0, entering.data(), y);
        for (int64_t i = 0; i < rows; ++i) {
          double g = gate.values[token * inner + head * rows + i];
          y[i] = (y[i] + passing.values[head] * all[head * rows + i]) * g * sigmoid(g);
        }
      }
    }
  }
  auto what = std::string("state space of ") + std::to_string(dims) + " by " + std::to_string(rows) + " " + name_of(type);
  out.expect(wanted, tolerance_of(type), what);
  state.expect(states, what + ", state");
}

void check_scan(Float type, int64_t tokens, int64_t channels, int64_t dims, Random& random) {
  constexpr int64_t batch = 2;
  int64_t count = batch * tokens * channels;
  Tensor x(type, count, random);
  Tensor steps(type, count, random);
  Tensor b(type, batch * tokens * dims, random);
  Tensor c(type, batch * tokens * dims, random);
  Tensor gate(type, count, random);
  Tensor rates(Float::f32, channels * dims, random, 0.5);
  Tensor passing(type, channels, random);
  Own own(batch * tokens, random);
  State state(batch * channels * dims, random);
  Result y(type, count);
  cpu::Scan s = {};
  s.batch = batch;
  s.tokens = tokens;
  s.channels = channels;
  s.dims = dims;
  s.x = x.rows(tokens, channels);
  s.steps = steps.rows(tokens, channels);
  s.entering = b.rows(tokens, dims);
  s.reading = c.rows(tokens, dims);
  s.gate = gate.rows(tokens, channels);
  s.rates = rates.numbers();
  s.passing = passing.numbers();
  s.own = own.memory.data<bool>();
  s.state = state.memory.data<float>();
  s.type = type;
  s.y = y.memory.data();
  run(s);
  std::vector<double> wanted(count);
  auto states = state.values;
  for (int64_t row = 0; row < batch; ++row) {
    for (int64_t t = 0; t < tokens; ++t) {
      int64_t token = row * tokens + t;
      for (int64_t i = 0; i < channels; ++i) {
        int64_t at = token * channels + i;
        double step = own[token] ? softplus(steps.values[at]) : 0;
        double total = passing.values[i] * x.values[at];
        for (int64_t n = 0; n < dims; ++n) {
          double& entry = states[(row * channels + i) * dims + n];
          entry = entry * std::exp(-std::exp(rates.values[i * dims + n]) * step) + step * x.values[at] * b.values[token * dims + n];
          total += entry * c.values[token * dims + n];
        }
        wanted[at] = total * gate.values[at] * sigmoid(gate.values[at]);
      }
    }
  }
  auto what = std::string("scan of ") + std::to_string(channels) + " by " + std::to_string(dims) + " " + name_of(type);
  y.expect(wanted, tolerance_of(type), what);
  state.expect(states, what + ", state");
}

} // namespace

void check_recurrence(Sweep sweep) {
  Random random(4);
  std::vector<int64_t> lengths = {1, 3, 33};
  std::vector<int64_t> widths = {1, 5, 16, 64, 100, 128};
  if (sweep == Sweep::few) {
    lengths = {1, 33};
    widths = {16, 100};
  }
  for (Float type : types) {
    for (int64_t tokens : lengths) {
      for (bool everything : {false, true}) {
        for (int64_t taps : {1, 2, 3, 4, 9}) {
          for (int64_t channels : {1, 16, 37, 530}) {
            check_convolution(type, tokens, channels, taps, everything, random);
          }
        }
      }
      for (int64_t dims : widths) {
        for (int64_t rows : {1, 6}) {
          for (Rule rule : {Rule::write, Rule::delta, Rule::general}) {
            for (bool by_channel : {false, true}) {
              check_rule(type, rule, by_channel, tokens, dims, rows, random);
            }
          }
          check_delta_heads(type, tokens, dims, rows, random);
          check_state_space(type, tokens, dims, rows, random);
        }
        check_scan(type, tokens, 70, dims, random);
      }
    }
  }
}

} // namespace mlxlm::check
