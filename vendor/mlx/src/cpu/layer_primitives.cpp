#include "cpu/layer_primitives.h"

#include <algorithm>
#include <cstring>

#include "cpu/arrays.h"
#include "cpu/attention.h"
#include "cpu/layer_primitive.h"
#include "cpu/rotation_table.h"
#include "cpu/rows.h"

namespace mlxlm::cpu {
namespace {

// Inputs: x, delta where two outputs are wanted, weight where there is one.
class RmsNorm : public LayerPrimitive {
 public:
  RmsNorm(mx::Stream stream, float eps, bool weighted) : LayerPrimitive(stream), eps_(eps), weighted_(weighted) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    std::vector<array> held;
    for (auto& output : outputs) {
      allocate(output);
      held.push_back(array::unsafe_weak_copy(output));
    }
    for (auto& input : inputs) {
      held.push_back(array::unsafe_weak_copy(in_order(input, encoder)));
    }
    encoder.dispatch([held = std::move(held), adds = outputs.size() == 2, weighted = weighted_, eps = eps_]() mutable {
      auto& out = adds ? held[1] : held[0];
      auto& x = adds ? held[2] : held[1];
      int64_t dims = x.shape(-1);
      Norm norm = {float_of(x.dtype()), dims, weighted ? held.back().data<void>() : nullptr, eps};
      auto& kernels = row_kernels();
      for_rows(dims == 0 ? 0 : x.size() / dims, dims, [&](int64_t row) {
        kernels.norm(
            norm, row_of(x, row, dims), adds ? row_of(held[3], row, dims) : nullptr,
            adds ? row_of(held[0], row, dims) : nullptr, row_of(out, row, dims));
      });
    });
  }

  const char* name() const override {
    return "CpuRmsNorm";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    return eps_ == static_cast<const RmsNorm&>(other).eps_;
  }

 private:
  float eps_;
  bool weighted_;
};

// Inputs: x (B, H, T, D), wavelengths where there is no base.
class Rotate : public LayerPrimitive {
 public:
  Rotate(mx::Stream stream, int rotated, Angles angles)
      : LayerPrimitive(stream), rotated_(rotated), angles_(angles) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    auto& out = outputs[0];
    allocate(out);
    bool rows_in_order = inputs[0].strides(-1) == 1 || inputs[0].shape(-1) == 1;
    std::vector<array> held = {
        array::unsafe_weak_copy(out),
        array::unsafe_weak_copy(rows_in_order ? inputs[0] : in_order(inputs[0], encoder))};
    if (inputs.size() == 2) {
      held.push_back(array::unsafe_weak_copy(inputs[1]));
    }
    encoder.dispatch([held = std::move(held), rotated = rotated_, angles = angles_]() mutable {
      auto& x = held[1];
      int heads = x.shape(1);
      int length = x.shape(2);
      int64_t dims = x.shape(3);
      auto inverse = inverse_frequencies(rotated, angles, held.size() == 3 ? &held[2] : nullptr);
      auto table = rotation_table(std::move(inverse), angles.scale, angles.offset, length);
      auto& kernels = row_kernels();
      for_rows(dims == 0 ? 0 : x.size() / dims, dims, [&](int64_t row) {
        int64_t t = row % length;
        int64_t from = row / length / heads * x.strides(0) + row / length % heads * x.strides(1) + t * x.strides(2);
        Rotation rotation = {
            float_of(x.dtype()), dims, rotated, table->cosines.data() + t * (rotated / 2),
            table->sines.data() + t * (rotated / 2)};
        kernels.rotate(
            rotation, nullptr, x.data<char>() + from * static_cast<int64_t>(x.itemsize()), row_of(held[0], row, dims));
      });
    });
  }

  const char* name() const override {
    return "CpuRotate";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& rotate = static_cast<const Rotate&>(other);
    return rotated_ == rotate.rotated_ && angles_ == rotate.angles_;
  }

 private:
  int rotated_;
  Angles angles_;
};

// Inputs: the joint projection (B, 1, (H + 2 Hkv) D), weights of queries and keys where there are any, wavelengths where
// there is no base. Outputs: queries, keys, values.
class RotateHeads : public LayerPrimitive {
 public:
  RotateHeads(mx::Stream stream, bool normed, float eps, int rotated, Angles angles)
      : LayerPrimitive(stream), normed_(normed), eps_(eps), rotated_(rotated), angles_(angles) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    std::vector<array> outs;
    for (auto& output : outputs) {
      allocate(output);
      outs.push_back(array::unsafe_weak_copy(output));
    }
    std::vector<array> ordered;
    for (auto& input : inputs) {
      ordered.push_back(array::unsafe_weak_copy(in_order(input, encoder)));
    }
    auto next = ordered.begin();
    auto joint = std::move(*next++);
    std::vector<array> weights; // of queries and keys
    if (normed_) {
      weights = {next[0], next[1]};
      next += 2;
    }
    auto freqs = next == ordered.end() ? std::nullopt : std::optional<array>(*next);
    encoder.dispatch([outs = std::move(outs), joint = std::move(joint), weights = std::move(weights),
                      freqs = std::move(freqs), normed = normed_, eps = eps_, rotated = rotated_,
                      angles = angles_]() mutable {
      int64_t dims = outs[0].shape(-1);
      auto inverse = inverse_frequencies(rotated, angles, freqs ? &*freqs : nullptr);
      auto table = rotation_table(std::move(inverse), angles.scale, angles.offset, 1);
      auto type = float_of(joint.dtype());
      Rotation rotation = {type, dims, rotated, table->cosines.data(), table->sines.data()};
      auto& kernels = row_kernels();
      int64_t row = 0;
      for (int64_t b = 0; b < joint.shape(0); ++b) {
        for (int which = 0; which < 3; ++which) {
          auto& out = outs[which];
          Norm norm = {type, dims, normed && which < 2 ? weights[which].data<void>() : nullptr, eps};
          for (int64_t h = 0; h < out.shape(1); ++h, ++row) {
            auto from = row_of(joint, row, dims);
            auto to = row_of(out, b * out.shape(1) + h, dims);
            if (which == 2) {
              std::memcpy(to, from, dims * joint.itemsize());
            } else {
              kernels.rotate(rotation, normed ? &norm : nullptr, from, to);
            }
          }
        }
      }
    });
  }

  const char* name() const override {
    return "CpuRotateHeads";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& rotate = static_cast<const RotateHeads&>(other);
    return normed_ == rotate.normed_ && eps_ == rotate.eps_ && rotated_ == rotate.rotated_ &&
        angles_ == rotate.angles_;
  }

 private:
  bool normed_;
  float eps_;
  int rotated_;
  Angles angles_;
};

// Inputs: gate and x, (…, N).
class Gated : public LayerPrimitive {
 public:
  Gated(mx::Stream stream, Gate kind) : LayerPrimitive(stream), kind_(kind) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    std::vector<array> held = {array::unsafe_weak_copy(outputs[0])};
    for (auto& input : inputs) {
      bool rows_in_order = input.strides(-1) == 1 || input.shape(-1) == 1;
      held.push_back(array::unsafe_weak_copy(rows_in_order ? input : in_order(input, encoder)));
    }
    encoder.dispatch([held = std::move(held), kind = kind_]() mutable {
      auto& out = held[0];
      if (out.size() == 0) {
        return;
      }
      int64_t dims = out.shape(-1);
      int64_t rows = out.size() / dims;
      auto gates = offsets_of(held[1].shape(), held[1].strides(), 1);
      auto values = offsets_of(held[2].shape(), held[2].strides(), 1);
      int64_t size = out.itemsize();
      auto& kernels = row_kernels();
      // A single long row is cut, too.
      int64_t parts = (dims + piece - 1) / piece;
      parallel_for(rows * parts, [&](int64_t i) {
        int64_t row = i / parts;
        int64_t from = i % parts * piece;
        kernels.gate(
            kind, float_of(out.dtype()), held[1].data<char>() + (gates[row] + from) * size,
            held[2].data<char>() + (values[row] + from) * size, out.data<char>() + (row * dims + from) * size,
            std::min(piece, dims - from));
      });
    });
  }

  const char* name() const override {
    return "CpuGated";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    return kind_ == static_cast<const Gated&>(other).kind_;
  }

 private:
  Gate kind_;
};

// Inputs: q, k, v, mask and sinks where there are any.
class Attend : public LayerPrimitive {
 public:
  Attend(mx::Stream stream, float scale, bool causal, bool masked, bool sinks)
      : LayerPrimitive(stream), scale_(scale), causal_(causal), masked_(masked), sinks_(sinks) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    auto& out = outputs[0];
    int64_t heads = out.shape(1);
    int64_t length = out.shape(2);
    int64_t dims = out.shape(3);
    // Heads of a token lie side by side, as the projection behind it wants them.
    array::Flags flags = {.contiguous = true, .row_contiguous = length == 1 || heads == 1, .col_contiguous = false};
    out.set_data(
        mx::allocator::malloc(out.nbytes()), out.size(), {length * heads * dims, dims, heads * dims, 1}, flags);
    std::vector<array> held = {array::unsafe_weak_copy(out)};
    for (auto& input : inputs) {
      bool is_row = held.size() > 3 || input.strides(-1) == 1;
      held.push_back(array::unsafe_weak_copy(is_row ? input : in_order(input, encoder)));
    }
    encoder.dispatch([held = std::move(held), scale = scale_, causal = causal_, masked = masked_,
                      sinks = sinks_]() mutable {
      auto& q = held[1];
      auto& k = held[2];
      Attention attention = {};
      attention.type = float_of(q.dtype());
      attention.batch = q.shape(0);
      attention.heads = q.shape(1);
      attention.group = q.shape(1) / k.shape(1);
      attention.length = q.shape(2);
      attention.total = k.shape(2);
      attention.dims = q.shape(3);
      attention.scale = scale;
      attention.causal = causal;
      attention.q = q.data<void>();
      attention.k = k.data<void>();
      attention.v = held[3].data<void>();
      attention.out = held[0].data<void>();
      for (int axis = 0; axis < 3; ++axis) {
        attention.q_strides[axis] = q.strides(axis);
        attention.k_strides[axis] = k.strides(axis);
        attention.v_strides[axis] = held[3].strides(axis);
        attention.out_strides[axis] = held[0].strides(axis);
      }
      if (masked) {
        auto& mask = held[4];
        attention.mask = mask.data<void>();
        attention.mask_kind = mask.dtype() == mx::bool_ ? Mask::boolean
            : mask.dtype() == mx::float32               ? Mask::f32
            : mask.dtype() == mx::float16               ? Mask::f16
                                                        : Mask::bf16;
        std::copy(mask.strides().begin(), mask.strides().end(), attention.mask_strides);
      }
      if (sinks) {
        attention.sinks = held.back().data<void>();
      }
      run(attention);
    });
  }

  const char* name() const override {
    return "CpuAttention";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& attend = static_cast<const Attend&>(other);
    return scale_ == attend.scale_ && causal_ == attend.causal_ && masked_ == attend.masked_ &&
        sinks_ == attend.sinks_;
  }

 private:
  float scale_;
  bool causal_;
  bool masked_;
  bool sinks_;
};

} // namespace

bool takes_rms_norm(const array& x, const std::optional<array>& weight, mx::StreamOrDevice s) {
  bool fits = !weight || (weight->ndim() == 1 && weight->dtype() == x.dtype() && weight->shape(0) == x.shape(-1));
  return takes(s) && x.ndim() > 0 && is_known(x.dtype()) && fits;
}

array rms_norm(const array& x, const std::optional<array>& weight, float eps, mx::StreamOrDevice s) {
  std::vector<array> inputs = {x};
  if (weight) {
    inputs.push_back(*weight);
  }
  return array(
      x.shape(), x.dtype(), std::make_shared<RmsNorm>(mx::to_stream(s), eps, weight.has_value()), std::move(inputs));
}

bool takes_add_rms_norm(const array& x, const array& delta, const array& weight, mx::StreamOrDevice s) {
  return x.shape() == delta.shape() && x.dtype() == delta.dtype() && takes_rms_norm(x, weight, s);
}

std::vector<array>
add_rms_norm(const array& x, const array& delta, const array& weight, float eps, mx::StreamOrDevice s) {
  return array::make_arrays(
      {x.shape(), x.shape()}, {x.dtype(), x.dtype()}, std::make_shared<RmsNorm>(mx::to_stream(s), eps, true),
      {x, delta, weight});
}

bool takes_rotate(const array& x, int dims, const std::optional<array>& freqs, mx::StreamOrDevice s) {
  bool fits = !freqs || (freqs->ndim() == 1 && freqs->dtype() == mx::float32 && freqs->shape(0) == dims / 2);
  return takes(s) && x.ndim() == 4 && is_known(x.dtype()) && dims > 0 && dims % 2 == 0 && dims <= x.shape(-1) &&
      fits && !traced(freqs);
}

array rotate(
    const array& x, int dims, const Angles& angles, const std::optional<array>& freqs, mx::StreamOrDevice s) {
  std::vector<array> inputs = {x};
  if (freqs) {
    inputs.push_back(*freqs);
  }
  return array(x.shape(), x.dtype(), std::make_shared<Rotate>(mx::to_stream(s), dims, angles), std::move(inputs));
}

bool takes_rotate_heads(
    const array& joint, int dims, int rotated, const std::optional<array>& query_weight,
    const std::optional<array>& key_weight, const std::optional<array>& freqs, mx::StreamOrDevice s) {
  auto fits = [&](const std::optional<array>& weight) {
    return !weight || (weight->ndim() == 1 && weight->dtype() == joint.dtype() && weight->shape(0) == dims);
  };
  bool freqs_fit = !freqs || (freqs->ndim() == 1 && freqs->dtype() == mx::float32 && freqs->shape(0) == rotated / 2);
  return takes(s) && joint.ndim() == 3 && joint.shape(1) == 1 && is_known(joint.dtype()) && rotated > 0 &&
      rotated % 2 == 0 && rotated <= dims && fits(query_weight) && fits(key_weight) &&
      query_weight.has_value() == key_weight.has_value() && freqs_fit && !traced(joint) && !traced(query_weight) &&
      !traced(key_weight);
}

std::vector<array> rotate_heads(
    const array& joint, int heads, int kv_heads, const std::optional<array>& query_weight,
    const std::optional<array>& key_weight, float eps, int rotated, const Angles& angles,
    const std::optional<array>& freqs, mx::StreamOrDevice s) {
  int batch = joint.shape(0);
  int dims = joint.shape(-1) / (heads + 2 * kv_heads);
  std::vector<array> inputs = {joint};
  if (query_weight) {
    inputs.push_back(*query_weight);
    inputs.push_back(*key_weight);
  }
  if (freqs) {
    inputs.push_back(*freqs);
  }
  auto dtype = joint.dtype();
  return array::make_arrays(
      {{batch, heads, 1, dims}, {batch, kv_heads, 1, dims}, {batch, kv_heads, 1, dims}}, {dtype, dtype, dtype},
      std::make_shared<RotateHeads>(mx::to_stream(s), query_weight.has_value(), eps, rotated, angles),
      std::move(inputs));
}

bool takes_gate(const array& gate, const array& x, mx::StreamOrDevice s) {
  return takes(s) && gate.ndim() > 0 && gate.shape() == x.shape() && gate.dtype() == x.dtype() &&
      is_known(x.dtype());
}

array gate(bool gelu, const array& gate, const array& x, mx::StreamOrDevice s) {
  return array(
      x.shape(), x.dtype(), std::make_shared<Gated>(mx::to_stream(s), gelu ? Gate::gelu : Gate::silu), {gate, x});
}

bool takes_attention(
    const array& q, const array& k, const array& v, const std::string& mode, const std::optional<array>& mask,
    const std::optional<array>& sinks, mx::StreamOrDevice s) {
  bool fits = takes(s) && q.ndim() == 4 && k.ndim() == 4 && v.shape() == k.shape() && is_known(q.dtype()) &&
      q.dtype() == k.dtype() && q.dtype() == v.dtype() && q.size() > 0 && k.size() > 0 && q.shape(0) == k.shape(0) &&
      q.shape(1) % k.shape(1) == 0 && q.shape(3) == k.shape(3) && q.shape(3) % 16 == 0 && q.shape(3) <= largest_dims;
  if (!fits || traced(q, k, v) || traced(mask) || traced(sinks)) {
    return false;
  }
  if (mode == "causal" && q.shape(2) > k.shape(2)) {
    return false;
  }
  if (mask && mask->dtype() != mx::bool_ && !is_known(mask->dtype())) {
    return false;
  }
  return !sinks || (sinks->ndim() == 1 && sinks->shape(0) == q.shape(1));
}

array attention(
    const array& q, const array& k, const array& v, float scale, bool causal, const std::optional<array>& mask,
    const std::optional<array>& sinks, mx::StreamOrDevice s) {
  std::vector<array> inputs = {q, k, v};
  if (mask) {
    inputs.push_back(mx::broadcast_to(*mask, {q.shape(0), q.shape(1), q.shape(2), k.shape(2)}, s));
  }
  if (sinks) {
    inputs.push_back(mx::contiguous(mx::astype(*sinks, q.dtype(), s), false, s));
  }
  return array(
      q.shape(), q.dtype(),
      std::make_shared<Attend>(mx::to_stream(s), scale, causal, mask.has_value(), sinks.has_value()),
      std::move(inputs));
}

} // namespace mlxlm::cpu
