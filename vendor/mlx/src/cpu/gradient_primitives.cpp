#include "cpu/gradient_primitives.h"

#include "cpu/gradients.h"
#include "cpu/layer_primitive.h"
#include "cpu/layer_primitives.h"
#include "mlx/transforms.h"

namespace mlxlm::cpu {
namespace {

using Arrays = std::vector<array>;

Arrays weak_copies(const Arrays& outputs, const Arrays& inputs, mx::cpu::CommandEncoder& encoder) {
  Arrays held;
  for (const auto& output : outputs) {
    held.push_back(array::unsafe_weak_copy(output));
  }
  for (const auto& input : inputs) {
    held.push_back(array::unsafe_weak_copy(in_order(input, encoder)));
  }
  return held;
}

// Inputs: x, slope, weight where there is one. Output: the gradient by x.
class RmsNormSlope : public LayerPrimitive {
 public:
  RmsNormSlope(mx::Stream stream, float eps) : LayerPrimitive(stream), eps_(eps) {}

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    encoder.dispatch([held = weak_copies(outputs, inputs, encoder), eps = eps_]() mutable {
      int64_t dims = held[0].shape(-1);
      Norm norm = {float_of(held[0].dtype()), dims, held.size() == 4 ? held[3].data<void>() : nullptr, eps};
      auto& kernels = gradient_kernels();
      for_rows(dims == 0 ? 0 : held[0].size() / dims, dims, [&](int64_t row) {
        kernels.norm(norm, row_of(held[1], row, dims), row_of(held[2], row, dims), row_of(held[0], row, dims));
      });
    });
  }

  const char* name() const override {
    return "CpuRmsNormSlope";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    return eps_ == static_cast<const RmsNormSlope&>(other).eps_;
  }

 private:
  float eps_;
};

// Inputs: gate, x, slope. Outputs: the gradients by gate and by x.
class GateSlopes : public LayerPrimitive {
 public:
  GateSlopes(mx::Stream stream, Gate kind) : LayerPrimitive(stream), kind_(kind) {}

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    allocate(outputs[1]);
    encoder.dispatch([held = weak_copies(outputs, inputs, encoder), kind = kind_]() mutable {
      int64_t size = held[0].size();
      auto type = float_of(held[0].dtype());
      auto& kernels = gradient_kernels();
      parallel_for((size + piece - 1) / piece, [&](int64_t i) {
        int64_t count = std::min(piece, size - i * piece);
        auto at = [&](int which) { return row_of(held[which], i, piece); };
        kernels.gate(kind, type, at(2), at(3), at(4), at(0), at(1), count);
      });
    });
  }

  const char* name() const override {
    return "CpuGateSlopes";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    return kind_ == static_cast<const GateSlopes&>(other).kind_;
  }

 private:
  Gate kind_;
};

// Inputs: logits, targets, and the losses' slopes for the gradient by the logits. Output: that, or the losses.
class CrossEntropy : public LayerPrimitive {
 public:
  using LayerPrimitive::LayerPrimitive;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    encoder.dispatch([held = weak_copies(outputs, inputs, encoder)]() mutable {
      auto& logits = held[1];
      int64_t dims = logits.shape(-1);
      auto type = float_of(logits.dtype());
      auto targets = held[2].data<int32_t>();
      auto& kernels = gradient_kernels();
      for_rows(logits.size() / dims, dims, [&](int64_t row) {
        auto x = row_of(logits, row, dims);
        if (held.size() == 4) {
          auto slope = row_of(held[3], row, 1);
          kernels.cross_entropy_slope(type, x, targets[row], slope, row_of(held[0], row, dims), dims);
        } else {
          kernels.cross_entropy(type, x, targets[row], row_of(held[0], row, 1), dims);
        }
      });
    });
  }

  const char* name() const override {
    return "CpuCrossEntropy";
  }
  bool is_equivalent(const mx::Primitive&) const override {
    return true;
  }
};

using Function = std::function<Arrays(const Arrays&)>;
using Backward = std::function<Arrays(const Arrays&, const Arrays&, const Arrays&)>;

// `kernel` with its gradient; other transformations take the same in MLX's operations.
array differentiable(const Function& kernel, const Backward& backward, const Function& plain, const Arrays& inputs) {
  auto tangents = [plain](const Arrays& primals, const Arrays& given, const std::vector<int>& argnums) {
    Arrays all;
    for (size_t i = 0, next = 0; i < primals.size(); ++i) {
      bool is_given = next < argnums.size() && argnums[next] == static_cast<int>(i);
      all.push_back(is_given ? given[next++] : mx::zeros_like(primals[i]));
    }
    return mx::jvp(plain, primals, all).second;
  };
  auto batched = [plain](const Arrays& arrays, const std::vector<int>& axes) {
    return std::pair<Arrays, std::vector<int>>(mx::vmap(plain, axes, {0})(arrays), {0});
  };
  return mx::custom_function(kernel, backward, tangents, batched)(inputs)[0];
}

std::optional<array> second(const Arrays& inputs) {
  return inputs.size() > 1 ? std::optional(inputs[1]) : std::nullopt;
}

} // namespace

array rms_norm_with_gradient(const array& x, const std::optional<array>& weight, float eps, mx::StreamOrDevice s) {
  auto backward = [=](const Arrays& in, const Arrays& slopes, const Arrays&) -> Arrays {
    Arrays arrays = {in[0], slopes[0]};
    arrays.insert(arrays.end(), in.begin() + 1, in.end());
    Arrays results = {array(
        in[0].shape(), in[0].dtype(), std::make_shared<RmsNormSlope>(mx::to_stream(s), eps), std::move(arrays))};
    if (in.size() > 1) {
      // Made only where the weight is trained.
      auto products = mx::multiply(slopes[0], rms_norm(in[0], std::nullopt, eps, s), s);
      auto sums = mx::sum(mx::astype(mx::reshape(products, {-1, in[0].shape(-1)}, s), mx::float32, s), 0, false, s);
      results.push_back(mx::astype(sums, in[1].dtype(), s));
    }
    return results;
  };
  Arrays inputs = {x};
  if (weight) {
    inputs.push_back(*weight);
  }
  return differentiable(
      [=](const Arrays& in) { return Arrays{rms_norm(in[0], second(in), eps, s)}; }, backward,
      [=](const Arrays& in) { return Arrays{mx::fast::rms_norm(in[0], second(in), eps, s)}; }, inputs);
}

array rotate_with_gradient(
    const array& x, int dims, const Angles& angles, const std::optional<array>& freqs, mx::StreamOrDevice s) {
  Angles back = angles;
  back.scale = -angles.scale;
  auto backward = [=](const Arrays& in, const Arrays& slopes, const Arrays&) -> Arrays {
    Arrays results = {rotate(slopes[0], dims, back, second(in), s)};
    if (in.size() > 1) {
      results.push_back(mx::zeros_like(in[1], s));
    }
    return results;
  };
  auto plain = [=](const Arrays& in) {
    return Arrays{mx::fast::rope(in[0], dims, false, angles.base, angles.scale, angles.offset, second(in), s)};
  };
  Arrays inputs = {x};
  if (freqs) {
    inputs.push_back(*freqs);
  }
  return differentiable(
      [=](const Arrays& in) { return Arrays{rotate(in[0], dims, angles, second(in), s)}; }, backward, plain, inputs);
}

array gate_with_gradient(bool gelu, const array& opening, const array& x, mx::StreamOrDevice s) {
  auto kind = gelu ? Gate::gelu : Gate::silu;
  auto backward = [=](const Arrays& in, const Arrays& slopes, const Arrays&) -> Arrays {
    auto [shape, dtype] = std::pair(in[0].shape(), in[0].dtype());
    return array::make_arrays(
        {shape, shape}, {dtype, dtype}, std::make_shared<GateSlopes>(mx::to_stream(s), kind), {in[0], in[1], slopes[0]});
  };
  auto plain = [=](const Arrays& in) {
    const auto& g = in[0];
    auto number = [&](float value) { return array(value, g.dtype()); };
    // The tanh form of gelu is g σ(2 √(2/π) (g + 0.044715 g³)).
    auto inner = gelu ? mx::multiply(
                            number(1.59576912f),
                            mx::add(g, mx::multiply(number(0.044715f), mx::multiply(g, mx::square(g, s), s), s), s), s)
                      : g;
    return Arrays{mx::multiply(mx::multiply(g, mx::sigmoid(inner, s), s), in[1], s)};
  };
  return differentiable(
      [=](const Arrays& in) { return Arrays{gate(gelu, in[0], in[1], s)}; }, backward, plain, {opening, x});
}

bool takes_cross_entropy(const array& logits, const array& targets, mx::StreamOrDevice s) {
  if (!takes(s) || logits.ndim() == 0 || logits.size() == 0 || !is_known(logits.dtype())) {
    return false;
  }
  mx::Shape leading(logits.shape().begin(), logits.shape().end() - 1);
  return targets.shape() == leading && mx::issubdtype(targets.dtype(), mx::integer);
}

array cross_entropy(const array& logits, const array& targets, mx::StreamOrDevice s) {
  auto primitive = std::make_shared<CrossEntropy>(mx::to_stream(s));
  auto kernel = [=](const Arrays& in) { return Arrays{array(in[1].shape(), in[0].dtype(), primitive, in)}; };
  auto wanted = mx::astype(targets, mx::int32, s);
  if (!traced(logits)) {
    return kernel({logits, wanted})[0];
  }
  auto backward = [=](const Arrays& in, const Arrays& slopes, const Arrays&) -> Arrays {
    return {array(in[0].shape(), in[0].dtype(), primitive, {in[0], in[1], slopes[0]}), mx::zeros_like(in[1], s)};
  };
  auto plain = [=](const Arrays& in) {
    auto score = mx::take_along_axis(in[0], mx::expand_dims(in[1], -1, s), -1, s);
    return Arrays{mx::subtract(mx::logsumexp(in[0], -1, false, s), mx::squeeze(score, -1, s), s)};
  };
  return differentiable(kernel, backward, plain, {logits, wanted});
}

} // namespace mlxlm::cpu
