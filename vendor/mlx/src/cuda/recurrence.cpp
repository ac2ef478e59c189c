#include "cuda/recurrence.h"

#include <map>

#include "cuda/kernel.h"
#include "cuda/recurrence_sources.h"
#include "cuda/rule_sources.h"

namespace mlxlm::cuda {

namespace {

bool is_float(const array& a) {
  return is_half(a.dtype()) || a.dtype() == mx::float32;
}
bool is_float(const std::optional<array>& a) {
  return !a || is_float(*a);
}

bool is_traced(const std::optional<array>& a) {
  return a && a->is_tracer();
}

template <class... Arrays>
bool take_floats(const Arrays&... arrays) {
  return (is_float(arrays) && ...) && !(is_traced(arrays) || ...);
}

bool takes_state(const std::optional<array>& state) {
  return !state || (state->dtype() == mx::float32 && !state->is_tracer());
}

// The inputs of a kernel, some of which may be absent: the kernel's name, its header and its constants tell which.
class Call {
 public:
  Call& input(const char* name, const array& a) {
    names_.push_back(name);
    arrays_.push_back(a);
    // Dtypes of all inputs are part of the kernel's source, so they must be of its name, too.
    constants_.emplace_back("DTYPE_" + std::to_string(arrays_.size()), static_cast<int>(a.dtype().val()));
    return *this;
  }
  Call& input(const char* name, const std::optional<array>& a, const char* flag) {
    define(flag, a.has_value());
    return a ? input(name, *a) : *this;
  }
  Call& define(const char* flag, int value) {
    header_ += std::string("#define ") + flag + " " + std::to_string(value) + "\n";
    suffix_ += "_" + std::to_string(value);
    return *this;
  }
  Call& constant(const char* name, int value) {
    constants_.emplace_back(name, value);
    return *this;
  }

  std::vector<array> run(
      const std::string& name, std::vector<std::string> outputs, const std::string& source,
      const std::vector<mx::Shape>& shapes, const std::vector<mx::Dtype>& dtypes, std::tuple<int, int, int> blocks,
      int threads, mx::StreamOrDevice s) {
    static auto* kernels = new std::map<std::string, Kernel>();
    auto full = name + suffix_;
    auto known = kernels->find(full);
    if (known == kernels->end()) {
      known = kernels->try_emplace(full, full, names_, std::move(outputs), source.c_str(), header_).first;
    }
    return known->second(arrays_, shapes, dtypes, {blocks, threads, {constants_.begin(), constants_.end()}}, s);
  }

 private:
  std::vector<std::string> names_;
  std::vector<array> arrays_;
  std::vector<std::pair<std::string, int>> constants_;
  std::string header_;
  std::string suffix_;
};

int parts(int count, int each) {
  return (count + each - 1) / each;
}

// Rows of a state that a block holds, 8 lanes each.
constexpr int rows_at_once = 16;

// Keys that a kernel takes: whole groups of 32, in registers.
bool takes_keys(int dims) {
  return dims % 32 == 0 && dims <= 256;
}

// What of so many arrays (TOKENS, KEYS) shared memory holds.
int tokens_at_once(int arrays, int keys) {
  int tokens = 16;
  while (tokens > 1 && arrays * tokens * keys * 4 > 40 * 1024) {
    tokens /= 2;
  }
  return tokens;
}

int delta_threads(const ours::DeltaHeads& h) {
  return h.value_dims() >= 128 ? 512 : 256;
}

// A block's registers hold a head's state: up to 48 numbers a thread leave room for the rest.
bool fits_registers(const ours::DeltaHeads& h) {
  int warps = delta_threads(h) / 32;
  return parts(h.value_dims(), warps) * h.key_dims() / 32 <= 48;
}

} // namespace

bool takes_short_conv(const ours::ShortConv& c, mx::StreamOrDevice s) {
  auto same = [&](const std::optional<array>& a) { return !a || a->dtype() == c.x.dtype(); };
  return on_gpu(s) && c.x.size() > 0 && c.weight.shape(1) >= 2 && c.weight.shape(1) <= 16 && same(c.opening) && same(c.gate) &&
      same(c.before) && take_floats(c.x, c.opening, c.gate, c.before, c.weight, c.bias) && c.x.shape(0) < 65536 &&
      c.x.shape(1) < (1 << 20);
}

std::vector<array> short_conv(const ours::ShortConv& c, mx::StreamOrDevice s) {
  constexpr int tokens = 16;
  constexpr int threads = 128;
  int batch = c.x.shape(0);
  int channels = c.x.shape(2);
  int taps = c.weight.shape(1);
  std::optional<array> lengths;
  if (!c.lengths.empty()) {
    lengths.emplace(c.lengths.data(), mx::Shape{batch}, mx::int32);
  }
  Call call;
  call.input("x", c.x).input("opening", c.opening, "OPENING").input("gate", c.gate, "GATE");
  call.input("before", c.before, "BEFORE").input("weight", c.weight);
  call.input("bias", c.bias, "BIAS").input("own", c.own, "OWN").input("lengths", lengths, "LENGTHS");
  call.constant("CHANNELS", channels).constant("TAPS", taps).constant("TOKENS", tokens).constant("SILU", c.silu);
  auto dtype = c.x.dtype();
  return call.run(
      "mlxlm_short_conv", {"y", "after"}, short_conv_source, {c.x.shape(), {batch, taps - 1, channels}},
      {dtype, dtype}, {parts(channels, threads), parts(c.x.shape(1), tokens), batch}, threads, s);
}

bool takes_delta_step(const ours::ShortConv& c, const ours::DeltaHeads& h, mx::StreamOrDevice s) {
  bool one = c.x.shape(1) == 1 && !c.own && c.lengths.empty() && c.before && h.state;
  return one && on_gpu(s) && c.x.size() > 0 && c.before->dtype() == c.x.dtype() && takes_state(h.state) &&
      takes_keys(h.key_dims()) && fits_registers(h) && c.weight.shape(1) >= 2 && c.weight.shape(1) <= 8 &&
      c.x.shape(0) < 65536 &&
      take_floats(
             c.x, c.before, c.weight, h.gate, h.strength, h.decay, h.rates, h.decay_bias, h.weight);
}

std::vector<array> delta_step(const ours::ShortConv& c, const ours::DeltaHeads& h, mx::StreamOrDevice s) {
  int threads = delta_threads(h);
  Call call;
  call.input("entering", c.x).input("gate", h.gate).input("strength", h.strength).input("decay", h.decay);
  call.input("before", *c.before).input("conv_weight", c.weight).input("rates", h.rates);
  call.input("decay_bias", h.decay_bias).input("weight", h.weight).input("state", *h.state);
  call.constant("KEYS", h.key_dims()).constant("VALUES", h.value_dims()).constant("HEADS", h.value_heads());
  call.constant("KEY_HEADS", h.key_heads).constant("TAPS", c.weight.shape(1)).constant("THREADS", threads);
  call.constant("EPS", bits_of(h.eps));
  auto dtype = c.x.dtype();
  return call.run(
      "mlxlm_delta_step", {"out", "after", "next"}, delta_step_source,
      {h.gate.shape(), c.before->shape(), h.state_shape()}, {dtype, dtype, mx::float32},
      {h.value_heads(), c.x.shape(0), 1}, threads, s);
}

bool takes_recurrence(const ours::Recurrence& r, mx::StreamOrDevice s) {
  return on_gpu(s) && r.values.size() > 0 && takes_state(r.state) && takes_keys(r.keys.shape(3)) &&
      r.values.shape(0) < 65536 && r.values.shape(2) < 65536 &&
      take_floats(r.queries, r.keys, r.values, r.decay, r.strength, r.readers, r.changes);
}

std::vector<array> recurrence(const ours::Recurrence& r, mx::StreamOrDevice s) {
  int batch = r.values.shape(0);
  int heads = r.values.shape(2);
  int values = r.values.shape(3);
  int keys = r.keys.shape(3);
  bool by_channel = r.decay.ndim() == 4;
  int rule = r.readers ? 2 : r.strength ? 1 : 0;
  int arrays = 2 + (by_channel ? 1 : 0) + (r.readers ? 1 : 0) + (r.changes ? 1 : 0);
  Call call;
  call.input("queries", r.queries).input("keys", r.keys).input("values", r.values).input("decay", r.decay);
  call.define("BY_CHANNEL", by_channel).define("RULE", rule);
  if (r.strength) {
    call.input("strength", *r.strength);
  }
  if (r.readers) {
    call.input("readers", *r.readers);
  }
  call.input("changes", r.changes, "CHANGES").input("state", r.state, "STATE").input("own", r.own, "OWN");
  call.constant("KEYS", keys).constant("VALUES", values).constant("HEADS", heads);
  call.constant("KEY_HEADS", r.keys.shape(2)).constant("ROWS", rows_at_once);
  call.constant("TOKENS", r.values.shape(1) == 1 ? 1 : tokens_at_once(arrays, keys));
  call.constant("QUERY_LENGTH", bits_of(r.query_length)).constant("KEY_LENGTH", bits_of(r.key_length));
  return call.run(
      "mlxlm_recurrence", {"y", "next"}, std::string(recurrence_source) + rule_source,
      {r.values.shape(), r.state_shape()}, {r.queries.dtype(), mx::float32},
      {parts(values, rows_at_once), heads, batch}, rows_at_once * 8, s);
}

bool takes_state_space(const ours::StateSpace& h, mx::StreamOrDevice s) {
  return on_gpu(s) && h.mixed.size() > 0 && takes_state(h.state) && takes_keys(h.state_dims()) &&
      h.mixed.shape(0) < 65536 && h.heads() < 65536 &&
      take_floats(h.mixed, h.steps, h.gate, h.rates, h.passing, h.step_bias);
}

std::vector<array> state_space(const ours::StateSpace& h, mx::StreamOrDevice s) {
  int batch = h.mixed.shape(0);
  int length = h.mixed.shape(1);
  Call call;
  call.input("mixed", h.mixed).input("steps", h.steps).input("gate", h.gate, "GATE").input("rates", h.rates);
  call.input("passing", h.passing).input("step_bias", h.step_bias).input("state", h.state, "STATE");
  call.input("own", h.own, "OWN").define("BY_CHANNEL", 0).define("RULE", 0);
  call.constant("KEYS", h.state_dims()).constant("VALUES", h.head_dims).constant("HEADS", h.heads());
  call.constant("KEY_HEADS", h.groups).constant("ROWS", rows_at_once);
  call.constant("TOKENS", length == 1 ? 1 : tokens_at_once(2, h.state_dims()));
  call.constant("LEAST", bits_of(h.least_step)).constant("MOST", bits_of(h.most_step));
  return call.run(
      "mlxlm_state_space", {"y", "next"}, std::string(state_space_source) + rule_source,
      {{batch, length, h.heads() * h.head_dims}, h.state_shape()}, {h.mixed.dtype(), mx::float32},
      {parts(h.head_dims, rows_at_once), h.heads(), batch}, rows_at_once * 8, s);
}

bool takes_selective_scan(const ours::SelectiveScan& h, mx::StreamOrDevice s) {
  return on_gpu(s) && h.x.size() > 0 && takes_state(h.state) && h.rates.shape(1) <= 64 && h.x.shape(0) < 65536 &&
      take_floats(h.x, h.steps, h.entering, h.reading, h.gate, h.rates, h.passing);
}

std::vector<array> selective_scan(const ours::SelectiveScan& h, mx::StreamOrDevice s) {
  constexpr int threads = 64;
  int channels = h.x.shape(2);
  Call call;
  call.input("x", h.x).input("steps", h.steps).input("gate", h.gate).input("entering", h.entering);
  call.input("reading", h.reading).input("rates", h.rates).input("passing", h.passing);
  call.input("state", h.state, "STATE").input("own", h.own, "OWN");
  call.constant("CHANNELS", channels).constant("ENTRIES", h.rates.shape(1));
  return call.run(
      "mlxlm_selective_scan", {"y", "next"}, selective_scan_source, {h.x.shape(), h.state_shape()},
      {h.x.dtype(), mx::float32}, {parts(channels, threads), h.x.shape(0), 1}, threads, s);
}

} // namespace mlxlm::cuda
