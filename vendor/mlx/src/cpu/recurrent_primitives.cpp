#include "cpu/recurrent_primitives.h"

#include <cstring>

#include "cpu/layer_primitive.h"
#include "cpu/recurrence.h"
#include "cpu/scan.h"

namespace mlxlm::cpu {
namespace {

// The inputs of a primitive by the places that its arguments have; absent ones have none.
class Places {
 public:
  Places& add(const array& a) {
    arrays_.push_back(a);
    present_.push_back(true);
    return *this;
  }
  Places& add(const std::optional<array>& a) {
    if (a) {
      return add(*a);
    }
    present_.push_back(false);
    return *this;
  }
  std::vector<array>& arrays() {
    return arrays_;
  }
  const std::vector<bool>& present() const {
    return present_;
  }

 private:
  std::vector<array> arrays_;
  std::vector<bool> present_;
};

// Whether what lies behind an array's tokens lies in order, as TokenRows want it.
bool has_token_rows(const array& a) {
  int64_t step = 1;
  for (int axis = static_cast<int>(a.ndim()) - 1; axis >= 2; --axis) {
    if (a.shape(axis) != 1 && a.strides(axis) != step) {
      return false;
    }
    step *= a.shape(axis);
  }
  return a.ndim() >= 2;
}

// What waits for a stream: arrays in the order of their places, readable as kernels want them.
class Held {
 public:
  // Those before `tokens` keep their steps along batch and tokens; others lie in order.
  Held(const std::vector<array>& inputs, const std::vector<bool>& present, size_t tokens,
       mx::cpu::CommandEncoder& encoder) {
    auto input = inputs.begin();
    for (size_t place = 0; place < present.size(); ++place) {
      if (!present[place]) {
        arrays_.emplace_back(std::nullopt);
        continue;
      }
      const auto& a = *input++;
      bool as_it_is = place < tokens && has_token_rows(a);
      arrays_.emplace_back(array::unsafe_weak_copy(as_it_is ? a : in_order(a, encoder)));
    }
  }

  TokenRows rows(size_t place) const {
    auto& a = arrays_[place];
    if (!a) {
      return {};
    }
    return {float_of(a->dtype()), a->data<void>(), a->strides(0), a->strides(1)};
  }
  Numbers numbers(size_t place) const {
    auto& a = arrays_[place];
    return a ? Numbers{float_of(a->dtype()), a->data<void>()} : Numbers{};
  }
  const bool* booleans(size_t place) const {
    return arrays_[place] ? arrays_[place]->data<bool>() : nullptr;
  }
  const array& operator[](size_t place) const {
    return *arrays_[place];
  }

 private:
  std::vector<std::optional<array>> arrays_;
};

// A primitive with a state, which is its last output and has a place among its inputs.
class WithState : public LayerPrimitive {
 public:
  WithState(mx::Stream stream, std::vector<bool> present, size_t state)
      : LayerPrimitive(stream), present_(std::move(present)), state_(state) {}

  bool is_equivalent(const mx::Primitive& other) const override {
    return present_ == static_cast<const WithState&>(other).present_;
  }

 protected:
  // Gives the new state its memory, the old one's where nobody else wants that, and fills it with what was before.
  void begin(const std::vector<array>& inputs, array& state, mx::cpu::CommandEncoder& encoder) const {
    if (!present_[state_]) {
      allocate(state);
      encoder.dispatch([out = array::unsafe_weak_copy(state)]() mutable {
        std::memset(out.data<void>(), 0, out.nbytes());
      });
      return;
    }
    size_t index = std::count(present_.begin(), present_.begin() + static_cast<int64_t>(state_), true);
    const auto& before = inputs[index];
    if (before.is_donatable() && before.flags().row_contiguous) {
      state.copy_shared_buffer(before);
      return;
    }
    allocate(state);
    auto ordered = in_order(before, encoder);
    encoder.dispatch([out = array::unsafe_weak_copy(state), from = array::unsafe_weak_copy(ordered)]() mutable {
      std::memcpy(out.data<void>(), from.data<void>(), out.nbytes());
    });
  }

  std::vector<bool> present_;

 private:
  size_t state_;
};

class CpuShortConv : public LayerPrimitive {
 public:
  CpuShortConv(mx::Stream stream, std::vector<bool> present, std::vector<int> lengths, bool silu)
      : LayerPrimitive(stream), present_(std::move(present)), lengths_(std::move(lengths)), silu_(silu) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    allocate(outputs[1]);
    Held held(inputs, present_, 3, encoder);
    encoder.dispatch([held = std::move(held), lengths = lengths_, silu = silu_,
                      y = array::unsafe_weak_copy(outputs[0]), after = array::unsafe_weak_copy(outputs[1])]() mutable {
      Convolution c = {};
      c.batch = y.shape(0);
      c.tokens = y.shape(1);
      c.channels = y.shape(2);
      c.taps = after.shape(1) + 1;
      c.type = float_of(y.dtype());
      c.x = held.rows(0);
      c.opening = held.rows(1);
      c.gate = held.rows(2);
      c.before = held.numbers(3).data;
      c.weight = held.numbers(4);
      c.bias = held.numbers(5);
      c.own = held.booleans(6);
      c.lengths = lengths.empty() ? nullptr : lengths.data();
      c.silu = silu;
      c.y = y.data<void>();
      c.after = after.data<void>();
      run(c);
    });
  }

  const char* name() const override {
    return "CpuShortConv";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& conv = static_cast<const CpuShortConv&>(other);
    return present_ == conv.present_ && lengths_ == conv.lengths_ && silu_ == conv.silu_;
  }

 private:
  std::vector<bool> present_;
  std::vector<int> lengths_;
  bool silu_;
};

class CpuDeltaHeads : public WithState {
 public:
  CpuDeltaHeads(mx::Stream stream, std::vector<bool> present, int key_heads, float eps)
      : WithState(stream, std::move(present), 7), key_heads_(key_heads), eps_(eps) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    begin(inputs, outputs[1], encoder);
    Held held(inputs, present_, 4, encoder);
    encoder.dispatch([held = std::move(held), key_heads = key_heads_, eps = eps_,
                      out = array::unsafe_weak_copy(outputs[0]), state = array::unsafe_weak_copy(outputs[1])]() mutable {
      DeltaHeads h = {};
      h.batch = out.shape(0);
      h.tokens = out.shape(1);
      h.key_heads = key_heads;
      h.value_heads = state.shape(1);
      h.key_dims = state.shape(3);
      h.value_dims = state.shape(2);
      h.mixed = held.rows(0);
      h.gate = held.rows(1);
      h.strength = held.rows(2);
      h.decay = held.rows(3);
      h.rates = held.numbers(4);
      h.decay_bias = held.numbers(5);
      h.weight = held.numbers(6);
      h.eps = eps;
      h.own = held.booleans(8);
      h.state = state.data<float>();
      h.type = float_of(out.dtype());
      h.out = out.data<void>();
      run(h);
    });
  }

  const char* name() const override {
    return "CpuDeltaHeads";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& heads = static_cast<const CpuDeltaHeads&>(other);
    return WithState::is_equivalent(other) && key_heads_ == heads.key_heads_ && eps_ == heads.eps_;
  }

 private:
  int key_heads_;
  float eps_;
};

class CpuRecurrence : public WithState {
 public:
  CpuRecurrence(mx::Stream stream, std::vector<bool> present, float query_length, float key_length)
      : WithState(stream, std::move(present), 7), query_length_(query_length), key_length_(key_length) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    begin(inputs, outputs[1], encoder);
    Held held(inputs, present_, 7, encoder);
    encoder.dispatch([held = std::move(held), query_length = query_length_, key_length = key_length_,
                      out = array::unsafe_weak_copy(outputs[0]), state = array::unsafe_weak_copy(outputs[1])]() mutable {
      RuleHeads h = {};
      h.batch = out.shape(0);
      h.tokens = out.shape(1);
      h.key_heads = held[1].shape(2);
      h.value_heads = state.shape(1);
      h.key_dims = state.shape(3);
      h.value_dims = state.shape(2);
      h.queries = held.rows(0);
      h.keys = held.rows(1);
      h.values = held.rows(2);
      h.decay = held.rows(3);
      h.by_channel = held[3].ndim() == 4;
      h.strengths = held.rows(4);
      h.readers = held.rows(5);
      h.changes = held.rows(6);
      h.query_length = query_length;
      h.key_length = key_length;
      h.own = held.booleans(8);
      h.state = state.data<float>();
      h.type = float_of(out.dtype());
      h.out = out.data<void>();
      run(h);
    });
  }

  const char* name() const override {
    return "CpuRecurrence";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& rule = static_cast<const CpuRecurrence&>(other);
    return WithState::is_equivalent(other) && query_length_ == rule.query_length_ && key_length_ == rule.key_length_;
  }

 private:
  float query_length_;
  float key_length_;
};

class CpuStateSpace : public WithState {
 public:
  CpuStateSpace(mx::Stream stream, std::vector<bool> present, int groups, float least_step, float most_step)
      : WithState(stream, std::move(present), 6), groups_(groups), least_step_(least_step), most_step_(most_step) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    begin(inputs, outputs[1], encoder);
    Held held(inputs, present_, 3, encoder);
    encoder.dispatch([held = std::move(held), groups = groups_, least_step = least_step_, most_step = most_step_,
                      out = array::unsafe_weak_copy(outputs[0]), state = array::unsafe_weak_copy(outputs[1])]() mutable {
      StateSpaceHeads h = {};
      h.batch = out.shape(0);
      h.tokens = out.shape(1);
      h.heads = state.shape(1);
      h.groups = groups;
      h.head_dims = state.shape(2);
      h.state_dims = state.shape(3);
      h.mixed = held.rows(0);
      h.steps = held.rows(1);
      h.gate = held.rows(2);
      h.rates = held.numbers(3);
      h.passing = held.numbers(4);
      h.step_bias = held.numbers(5);
      h.least_step = least_step;
      h.most_step = most_step;
      h.own = held.booleans(7);
      h.state = state.data<float>();
      h.type = float_of(out.dtype());
      h.out = out.data<void>();
      run(h);
    });
  }

  const char* name() const override {
    return "CpuStateSpace";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& space = static_cast<const CpuStateSpace&>(other);
    return WithState::is_equivalent(other) && groups_ == space.groups_ && least_step_ == space.least_step_ &&
        most_step_ == space.most_step_;
  }

 private:
  int groups_;
  float least_step_;
  float most_step_;
};

class CpuSelectiveScan : public WithState {
 public:
  CpuSelectiveScan(mx::Stream stream, std::vector<bool> present) : WithState(stream, std::move(present), 7) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    begin(inputs, outputs[1], encoder);
    Held held(inputs, present_, 5, encoder);
    encoder.dispatch([held = std::move(held), y = array::unsafe_weak_copy(outputs[0]),
                      state = array::unsafe_weak_copy(outputs[1])]() mutable {
      Scan s = {};
      s.batch = y.shape(0);
      s.tokens = y.shape(1);
      s.channels = y.shape(2);
      s.dims = state.shape(2);
      s.x = held.rows(0);
      s.steps = held.rows(1);
      s.entering = held.rows(2);
      s.reading = held.rows(3);
      s.gate = held.rows(4);
      s.rates = held.numbers(5);
      s.passing = held.numbers(6);
      s.own = held.booleans(8);
      s.state = state.data<float>();
      s.type = float_of(y.dtype());
      s.y = y.data<void>();
      run(s);
    });
  }

  const char* name() const override {
    return "CpuSelectiveScan";
  }
};

template <class... Arrays>
bool known(const Arrays&... arrays) {
  return (is_known(arrays.dtype()) && ...);
}

bool known(const std::optional<array>& a) {
  return !a || is_known(a->dtype());
}

bool fits_state(const std::optional<array>& state, const mx::Shape& shape) {
  bool some = std::all_of(shape.begin(), shape.end(), [](int size) { return size > 0; });
  return some && (!state || state->dtype() == mx::float32) && !traced(state);
}

bool same_dtype(const array& x, const std::optional<array>& other) {
  return !other || other->dtype() == x.dtype();
}

} // namespace

bool takes_short_conv(const ours::ShortConv& c, mx::StreamOrDevice s) {
  bool same = same_dtype(c.x, c.opening) && same_dtype(c.x, c.gate) && same_dtype(c.x, c.before);
  return takes(s) && c.x.size() > 0 && c.weight.shape(1) <= most_taps && same && known(c.x, c.weight) &&
      known(c.bias) && !traced(c.x, c.weight) && !traced(c.opening) && !traced(c.gate) && !traced(c.before) &&
      !traced(c.bias);
}

std::vector<array> short_conv(const ours::ShortConv& c, mx::StreamOrDevice s) {
  Places places;
  places.add(c.x).add(c.opening).add(c.gate).add(c.before).add(c.weight).add(c.bias).add(c.own);
  mx::Shape after = {c.x.shape(0), c.weight.shape(1) - 1, c.x.shape(2)};
  auto dtype = c.x.dtype();
  return array::make_arrays(
      {c.x.shape(), std::move(after)}, {dtype, dtype},
      std::make_shared<CpuShortConv>(mx::to_stream(s), places.present(), c.lengths, c.silu), places.arrays());
}

bool takes_delta_heads(const ours::DeltaHeads& h, mx::StreamOrDevice s) {
  return takes(s) && h.mixed.size() > 0 && fits_state(h.state, h.state_shape()) &&
      known(h.mixed, h.gate, h.strength, h.decay, h.rates, h.decay_bias, h.weight) &&
      !traced(h.mixed, h.gate, h.strength, h.decay, h.rates, h.decay_bias, h.weight);
}

std::vector<array> delta_heads(const ours::DeltaHeads& h, mx::StreamOrDevice s) {
  Places places;
  places.add(h.mixed).add(h.gate).add(h.strength).add(h.decay).add(h.rates).add(h.decay_bias).add(h.weight);
  places.add(h.state).add(h.own);
  return array::make_arrays(
      {h.gate.shape(), h.state_shape()}, {h.mixed.dtype(), mx::float32},
      std::make_shared<CpuDeltaHeads>(mx::to_stream(s), places.present(), h.key_heads, h.eps), places.arrays());
}

bool takes_recurrence(const ours::Recurrence& r, mx::StreamOrDevice s) {
  return takes(s) && r.values.size() > 0 && fits_state(r.state, r.state_shape()) &&
      known(r.queries, r.keys, r.values, r.decay) && known(r.strength) && known(r.readers) && known(r.changes) &&
      !traced(r.queries, r.keys, r.values, r.decay) && !traced(r.strength) && !traced(r.readers) &&
      !traced(r.changes);
}

std::vector<array> recurrence(const ours::Recurrence& r, mx::StreamOrDevice s) {
  Places places;
  places.add(r.queries).add(r.keys).add(r.values).add(r.decay).add(r.strength).add(r.readers).add(r.changes);
  places.add(r.state).add(r.own);
  return array::make_arrays(
      {r.values.shape(), r.state_shape()}, {r.queries.dtype(), mx::float32},
      std::make_shared<CpuRecurrence>(mx::to_stream(s), places.present(), r.query_length, r.key_length),
      places.arrays());
}

bool takes_state_space(const ours::StateSpace& h, mx::StreamOrDevice s) {
  return takes(s) && h.mixed.size() > 0 && fits_state(h.state, h.state_shape()) &&
      known(h.mixed, h.steps, h.rates, h.passing, h.step_bias) && known(h.gate) &&
      !traced(h.mixed, h.steps, h.rates, h.passing, h.step_bias) && !traced(h.gate);
}

std::vector<array> state_space(const ours::StateSpace& h, mx::StreamOrDevice s) {
  Places places;
  places.add(h.mixed).add(h.steps).add(h.gate).add(h.rates).add(h.passing).add(h.step_bias).add(h.state).add(h.own);
  mx::Shape out = {h.mixed.shape(0), h.mixed.shape(1), h.heads() * h.head_dims};
  return array::make_arrays(
      {std::move(out), h.state_shape()}, {h.mixed.dtype(), mx::float32},
      std::make_shared<CpuStateSpace>(mx::to_stream(s), places.present(), h.groups, h.least_step, h.most_step),
      places.arrays());
}

bool takes_selective_scan(const ours::SelectiveScan& h, mx::StreamOrDevice s) {
  return takes(s) && h.x.size() > 0 && fits_state(h.state, h.state_shape()) &&
      known(h.x, h.steps, h.entering, h.reading, h.gate, h.rates, h.passing) &&
      !traced(h.x, h.steps, h.entering, h.reading, h.gate, h.rates, h.passing);
}

std::vector<array> selective_scan(const ours::SelectiveScan& h, mx::StreamOrDevice s) {
  Places places;
  places.add(h.x).add(h.steps).add(h.entering).add(h.reading).add(h.gate).add(h.rates).add(h.passing);
  places.add(h.state).add(h.own);
  return array::make_arrays(
      {h.x.shape(), h.state_shape()}, {h.x.dtype(), mx::float32},
      std::make_shared<CpuSelectiveScan>(mx::to_stream(s), places.present()), places.arrays());
}

} // namespace mlxlm::cpu
