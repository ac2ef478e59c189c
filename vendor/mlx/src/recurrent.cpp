// Checks the arguments of recurrent operations, so that no kernel leaves its arrays, and sends them to a kernel.
#include "recurrent.h"

#include <sstream>

#include "cpu/recurrent_primitives.h"
#include "cuda/recurrence.h"
#include "metal_recurrent.h"

namespace mlxlm::ours {

namespace {

[[noreturn]] void refuse(const char* name, const array& a, const mx::Shape& wanted) {
  std::ostringstream text;
  text << name << " has the shape " << a.shape() << ", not " << wanted;
  throw std::invalid_argument(text.str());
}

void expect(const char* name, const array& a, const mx::Shape& wanted) {
  if (a.shape() != wanted) {
    refuse(name, a, wanted);
  }
}

void expect(const char* name, const std::optional<array>& a, const mx::Shape& wanted) {
  if (a) {
    expect(name, *a, wanted);
  }
}

void expect_rank(const char* name, const array& a, size_t rank) {
  if (a.ndim() != rank) {
    std::ostringstream text;
    text << name << " has the shape " << a.shape() << ", which is not " << rank << " axes";
    throw std::invalid_argument(text.str());
  }
}

void expect_own(const std::optional<array>& own, const array& tokens) {
  expect("own", own, {tokens.shape(0), tokens.shape(1)});
  if (own && own->dtype() != mx::bool_) {
    throw std::invalid_argument("own must be of booleans");
  }
}

// Whether heads of values share those of keys evenly.
void expect_heads(int key_heads, int value_heads) {
  if (key_heads < 1 || value_heads < 1 || value_heads % key_heads != 0) {
    throw std::invalid_argument(
        std::to_string(value_heads) + " heads of values cannot share " + std::to_string(key_heads) + " of keys");
  }
}

void expect_even(const char* name, int rest, int parts) {
  if (rest < parts || rest % parts != 0) {
    throw std::invalid_argument(
        std::string(name) + " has " + std::to_string(rest) + " numbers a token for " + std::to_string(parts) +
        " parts of equal width");
  }
}

void check(const ShortConv& c) {
  expect_rank("x", c.x, 3);
  if (c.weight.ndim() < 2 || c.weight.ndim() > 3 || c.weight.shape(1) < 1 ||
      (c.weight.ndim() == 3 && c.weight.shape(2) != 1)) {
    refuse("weight", c.weight, {c.x.shape(2), 4, 1});
  }
  int channels = c.x.shape(2);
  if (c.weight.shape(0) != channels) {
    refuse("weight", c.weight, {channels, c.weight.shape(1), 1});
  }
  expect("opening", c.opening, c.x.shape());
  expect("gate", c.gate, c.x.shape());
  expect("before", c.before, {c.x.shape(0), c.weight.shape(1) - 1, channels});
  expect("bias", c.bias, {channels});
  expect_own(c.own, c.x);
  if (!c.lengths.empty() && static_cast<int>(c.lengths.size()) != c.x.shape(0)) {
    throw std::invalid_argument(
        std::to_string(c.lengths.size()) + " lengths for " + std::to_string(c.x.shape(0)) + " rows");
  }
  for (int length : c.lengths) {
    if (length < 0 || length > c.x.shape(1)) {
      throw std::invalid_argument(
          "a length of " + std::to_string(length) + " in a batch of " + std::to_string(c.x.shape(1)) + " tokens");
    }
  }
}

void check(const DeltaHeads& h) {
  expect_rank("mixed", h.mixed, 3);
  expect_rank("rates", h.rates, 1);
  expect_rank("weight", h.weight, 1);
  int value_heads = h.value_heads();
  expect_heads(h.key_heads, value_heads);
  int values = value_heads * h.value_dims();
  expect_even("what enters", h.mixed.shape(2) - values, 2 * h.key_heads);
  int batch = h.mixed.shape(0);
  int length = h.mixed.shape(1);
  expect("gate", h.gate, {batch, length, values});
  expect("strength", h.strength, {batch, length, value_heads});
  expect("decay", h.decay, {batch, length, value_heads});
  expect("decay bias", h.decay_bias, {value_heads});
  expect("state", h.state, h.state_shape());
  expect_own(h.own, h.mixed);
}

void check(const Recurrence& r) {
  expect_rank("keys", r.keys, 4);
  expect_rank("values", r.values, 4);
  expect_heads(r.keys.shape(2), r.values.shape(2));
  int batch = r.values.shape(0);
  int length = r.values.shape(1);
  int heads = r.values.shape(2);
  mx::Shape keys = {batch, length, r.keys.shape(2), r.keys.shape(3)};
  expect("keys", r.keys, keys);
  expect("queries", r.queries, keys);
  expect("readers", r.readers, keys);
  expect("changes", r.changes, keys);
  expect("strength", r.strength, {batch, length, heads});
  if (r.decay.ndim() == 4) {
    expect("decay", r.decay, {batch, length, heads, r.keys.shape(3)});
  } else {
    expect("decay", r.decay, {batch, length, heads});
  }
  if ((r.readers && r.strength) || (r.changes && !r.readers)) {
    throw std::invalid_argument("a rule has either a strength, or readers and what they change");
  }
  expect("state", r.state, r.state_shape());
  expect_own(r.own, r.values);
}

void check(const StateSpace& h) {
  expect_rank("mixed", h.mixed, 3);
  expect_rank("rates", h.rates, 1);
  expect_heads(h.groups, h.heads());
  if (h.head_dims < 1) {
    throw std::invalid_argument("heads without a width");
  }
  int inner = h.heads() * h.head_dims;
  expect_even("what enters", h.mixed.shape(2) - inner, 2 * h.groups);
  int batch = h.mixed.shape(0);
  int length = h.mixed.shape(1);
  expect("steps", h.steps, {batch, length, h.heads()});
  expect("gate", h.gate, {batch, length, inner});
  expect("D", h.passing, {h.heads()});
  expect("step bias", h.step_bias, {h.heads()});
  expect("state", h.state, h.state_shape());
  expect_own(h.own, h.mixed);
}

void check(const SelectiveScan& h) {
  expect_rank("x", h.x, 3);
  expect_rank("rates", h.rates, 2);
  int dims = h.rates.shape(1);
  mx::Shape selection = {h.x.shape(0), h.x.shape(1), dims};
  expect("rates", h.rates, {h.x.shape(2), dims});
  expect("steps", h.steps, h.x.shape());
  expect("gate", h.gate, h.x.shape());
  expect("B", h.entering, selection);
  expect("C", h.reading, selection);
  expect("D", h.passing, {h.x.shape(2)});
  expect("state", h.state, h.state_shape());
  expect_own(h.own, h.x);
}

} // namespace

std::vector<array> short_conv(
    const array& x, const std::optional<array>& opening, const std::optional<array>& gate,
    const std::optional<array>& before, const array& weight, const std::optional<array>& bias,
    const std::optional<array>& own, const std::vector<int>& lengths, bool silu, mx::StreamOrDevice s) {
  ShortConv c = {x, opening, gate, before, weight, bias, own, lengths, silu};
  check(c);
  if (cpu::takes_short_conv(c, s)) {
    return cpu::short_conv(c, s);
  }
  if (cuda::takes_short_conv(c, s)) {
    return cuda::short_conv(c, s);
  }
  return {};
}

std::vector<array> delta_layer(
    const array& entering, const array& gate, const array& strength, const array& decay,
    const std::optional<array>& before, const array& conv_weight, const array& rates, const array& decay_bias,
    const array& weight, const std::optional<array>& state, const std::optional<array>& own,
    const std::vector<int>& lengths, int key_heads, float eps, mx::StreamOrDevice s) {
  ShortConv c = {entering, std::nullopt, std::nullopt, before, conv_weight, std::nullopt, own, lengths, true};
  DeltaHeads h = {entering, gate, strength, decay, rates, decay_bias, weight, state, own, key_heads, eps};
  check(c);
  check(h);
  if (cpu::takes_short_conv(c, s) && cpu::takes_delta_heads(h, s)) {
    auto convolved = cpu::short_conv(c, s);
    h.mixed = convolved[0];
    auto results = cpu::delta_heads(h, s);
    return {results[0], convolved[1], results[1]};
  }
  if (cuda::takes_delta_step(c, h, s)) {
    return cuda::delta_step(c, h, s);
  }
  return {};
}

std::vector<array> recurrence(
    const array& queries, const array& keys, const array& values, const array& decay,
    const std::optional<array>& strength, const std::optional<array>& readers, const std::optional<array>& changes,
    const std::optional<array>& state, const std::optional<array>& own, float query_length, float key_length,
    mx::StreamOrDevice s) {
  Recurrence r = {queries, keys, values, decay, strength, readers, changes, state, own, query_length, key_length};
  check(r);
  if (cpu::takes_recurrence(r, s)) {
    return cpu::recurrence(r, s);
  }
  if (cuda::takes_recurrence(r, s)) {
    return cuda::recurrence(r, s);
  }
  if (metal::takes_recurrence(r, s)) {
    return metal::recurrence(r, s);
  }
  return {};
}

std::vector<array> state_space(
    const array& mixed, const array& steps, const std::optional<array>& gate, const array& rates,
    const array& passing, const array& step_bias, const std::optional<array>& state, const std::optional<array>& own,
    int groups, int head_dims, float least_step, float most_step, mx::StreamOrDevice s) {
  StateSpace h = {mixed, steps, gate,   rates,     passing,    step_bias,
                  state, own,   groups, head_dims, least_step, most_step};
  check(h);
  if (cpu::takes_state_space(h, s)) {
    return cpu::state_space(h, s);
  }
  if (cuda::takes_state_space(h, s)) {
    return cuda::state_space(h, s);
  }
  return {};
}

std::vector<array> selective_scan(
    const array& x, const array& steps, const array& entering, const array& reading, const array& gate,
    const array& rates, const array& passing, const std::optional<array>& state, const std::optional<array>& own,
    mx::StreamOrDevice s) {
  SelectiveScan h = {x, steps, entering, reading, gate, rates, passing, state, own};
  check(h);
  if (cpu::takes_selective_scan(h, s)) {
    return cpu::selective_scan(h, s);
  }
  if (cuda::takes_selective_scan(h, s)) {
    return cuda::selective_scan(h, s);
  }
  return {};
}

} // namespace mlxlm::ours
