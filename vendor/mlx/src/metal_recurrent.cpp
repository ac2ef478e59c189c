#include "metal_recurrent.h"

#include <cmath>
#include <map>

namespace mlxlm::metal {

namespace {

// One SIMD group holds a row of a state over all tokens, KEYS / 32 entries a lane. Inputs queries, keys (B, T, KEY_HEADS,
// KEYS), values (B, T, HEADS, VALUES), decay (B, T, HEADS) or, BY_CHANNEL, (B, T, HEADS, KEYS), state (B, HEADS, VALUES,
// KEYS); with RULE 1 strength (B, T, HEADS), with RULE 2 readers and changes as keys; with OWN own (B, T). Outputs y as
// values, next as state.
constexpr const char* recurrence_source = R"(
  constexpr int PER_LANE = KEYS / 32;
  const uint lane = thread_position_in_threadgroup.x;
  const uint row = thread_position_in_grid.y;
  const uint head = thread_position_in_grid.z % HEADS;
  const uint batch = thread_position_in_grid.z / HEADS;
  const uint tokens = values_shape[1];
  const uint key_head = head / (HEADS / KEY_HEADS);
  const ulong states = ((ulong(batch) * HEADS + head) * VALUES + row) * KEYS + lane * PER_LANE;
  float s[PER_LANE];
  for (int i = 0; i < PER_LANE; ++i) {
    s[i] = state[states + i];
  }
  for (uint t = 0; t < tokens; ++t) {
    const ulong token = ulong(batch) * tokens + t;
    const ulong key = (token * KEY_HEADS + key_head) * KEYS + lane * PER_LANE;
    const ulong value = (token * HEADS + head) * VALUES + row;
#if OWN
    if (!own[token]) {
      if (lane == 0) {
        y[value] = static_cast<T>(0);
      }
      continue;
    }
#endif
    float q[PER_LANE];
    float k[PER_LANE];
    float query_squares = 0;
    float key_squares = 0;
    for (int i = 0; i < PER_LANE; ++i) {
      q[i] = static_cast<float>(queries[key + i]);
      k[i] = static_cast<float>(keys[key + i]);
      query_squares += q[i] * q[i];
      key_squares += k[i] * k[i];
    }
#if STRETCHES
    const float query_factor = lengths[0] * metal::rsqrt(simd_sum(query_squares) + 1e-6f);
    const float key_factor = lengths[1] * metal::rsqrt(simd_sum(key_squares) + 1e-6f);
    for (int i = 0; i < PER_LANE; ++i) {
      q[i] *= query_factor;
      k[i] *= key_factor;
    }
#endif
#if !BY_CHANNEL
    const float fade = metal::exp(static_cast<float>(decay[token * HEADS + head]));
#endif
    float found = 0;
    for (int i = 0; i < PER_LANE; ++i) {
#if BY_CHANNEL
      const float fade =
          metal::exp(static_cast<float>(decay[(token * HEADS + head) * KEYS + lane * PER_LANE + i]));
#endif
      s[i] *= fade;
#if RULE == 1
      found += s[i] * k[i];
#elif RULE == 2
      found += s[i] * static_cast<float>(readers[key + i]);
#endif
    }
    float written = static_cast<float>(values[value]);
#if RULE == 1
    written = static_cast<float>(strength[token * HEADS + head]) * (written - simd_sum(found));
#elif RULE == 2
    found = simd_sum(found);
#endif
    float read = 0;
    for (int i = 0; i < PER_LANE; ++i) {
      s[i] += written * k[i];
#if RULE == 2
      s[i] += found * static_cast<float>(changes[key + i]);
#endif
      read += s[i] * q[i];
    }
    read = simd_sum(read);
    if (lane == 0) {
      y[value] = static_cast<T>(read);
    }
  }
  for (int i = 0; i < PER_LANE; ++i) {
    next[states + i] = s[i];
  }
)";

int rule_of(const ours::Recurrence& r) {
  return r.readers ? 2 : r.strength ? 1 : 0;
}

std::vector<array> launch(const ours::Recurrence& r, mx::StreamOrDevice s) {
  int rule = rule_of(r);
  bool by_channel = r.decay.ndim() == 4;
  bool stretches = r.query_length > 0 && r.key_length > 0;
  std::vector<std::string> names = {"queries", "keys", "values", "decay", "state"};
  std::vector<array> inputs = {
      r.queries, r.keys, r.values, r.decay, r.state.value_or(mx::zeros(r.state_shape(), mx::float32, s))};
  auto add = [&](const char* name, const array& a) {
    names.emplace_back(name);
    inputs.push_back(a);
  };
  if (rule == 1) {
    add("strength", *r.strength);
  } else if (rule == 2) {
    add("readers", *r.readers);
    add("changes", r.changes.value_or(r.keys));
  }
  if (r.own) {
    add("own", *r.own);
  }
  if (stretches) {
    add("lengths", array({r.query_length, r.key_length}));
  }
  std::string suffix;
  std::string header;
  auto define = [&](const char* name, int value) {
    header += std::string("#define ") + name + " " + std::to_string(value) + "\n";
    suffix += "_" + std::to_string(value);
  };
  define("RULE", rule);
  define("BY_CHANNEL", by_channel);
  define("OWN", r.own.has_value());
  define("STRETCHES", stretches);
  static auto* kernels = new std::map<std::string, mx::fast::CustomKernelFunction>();
  auto known = kernels->find(suffix);
  if (known == kernels->end()) {
    auto made = mx::fast::metal_kernel("mlxlm_recurrence" + suffix, names, {"y", "next"}, recurrence_source, header);
    known = kernels->emplace(suffix, std::move(made)).first;
  }
  int heads = r.values.shape(2);
  int values = r.values.shape(3);
  std::vector<std::pair<std::string, mx::fast::TemplateArg>> constants = {
      {"T", r.queries.dtype()}, {"KEYS", r.keys.shape(3)}, {"VALUES", values},
      {"HEADS", heads},         {"KEY_HEADS", r.keys.shape(2)}};
  return known->second(
      inputs, {r.values.shape(), r.state_shape()}, {r.queries.dtype(), mx::float32},
      {32, values, heads * r.values.shape(0)}, {32, std::min(values, 4), 1}, constants, std::nullopt, false, s);
}

// Two tokens of one head whose state is one row: 0 w + 1 · 1 in every entry, then what the second makes of it.
bool is_right(mx::StreamOrDevice s) {
  constexpr int dims = 32;
  auto ones = mx::ones({1, 2, 1, dims}, mx::float32, s);
  auto value = mx::ones({1, 2, 1, 1}, mx::float32, s);
  auto fade = mx::full({1, 2, 1}, std::log(0.5f), mx::float32, s);
  auto share = mx::full({1, 2, 1}, 0.25f, mx::float32, s);
  ours::Recurrence r = {ones, ones, value, fade, share, std::nullopt, std::nullopt, std::nullopt, std::nullopt, 1, 1};
  auto results = launch(r, s);
  mx::eval(results);
  // Keys and queries have length one, so y is the share written, then half of it and a quarter of what is missing.
  auto y = results[0].data<float>();
  return std::abs(y[0] - 0.25f) < 1e-4f && std::abs(y[1] - (0.125f + 0.25f * 0.875f)) < 1e-4f;
}

bool works(mx::StreamOrDevice s) {
  static const bool right = [&] {
    try {
      return is_right(s);
    } catch (const std::exception&) {
      return false;
    }
  }();
  return right;
}

bool is_float(const array& a) {
  return a.dtype() == mx::float32 || a.dtype() == mx::float16 || a.dtype() == mx::bfloat16;
}

bool is_plain(const array& a) {
  return is_float(a) && !a.is_tracer();
}
bool is_plain(const std::optional<array>& a) {
  return !a || is_plain(*a);
}

} // namespace

bool takes_recurrence(const ours::Recurrence& r, mx::StreamOrDevice s) {
  if (!mx::metal::is_available() || mx::to_stream(s).device != mx::Device::gpu) {
    return false;
  }
  // Many tokens without a change of what was written are products of matrices, which are faster.
  bool steps = rule_of(r) != 0 || r.values.shape(1) == 1;
  bool fits = r.keys.shape(3) % 32 == 0 && r.keys.shape(3) <= 256 && r.values.size() > 0 &&
      (!r.state || r.state->dtype() == mx::float32);
  bool lengths = (r.query_length > 0) == (r.key_length > 0);
  return steps && fits && lengths && is_plain(r.queries) && is_plain(r.keys) && is_plain(r.values) &&
      is_plain(r.decay) && is_plain(r.strength) && is_plain(r.readers) && is_plain(r.changes) && is_plain(r.state) &&
      works(s);
}

std::vector<array> recurrence(const ours::Recurrence& r, mx::StreamOrDevice s) {
  return launch(r, s);
}

} // namespace mlxlm::metal
