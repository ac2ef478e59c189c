#include "cpu/primitives.h"

#include "cpu/arrays.h"
#include "cpu/isa.h"
#include "cpu/meetings.h"
#include "cpu/packing.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"

namespace mlxlm::cpu {
namespace {

constexpr size_t few_rows = 8;

// Inputs: x, w, an affine format's scales and biases or another's scales, and indices into x and w where gathered.
class CpuProduct : public mx::UnaryPrimitive {
 public:
  CpuProduct(mx::Stream stream, std::optional<Quantization> quantization, bool gathered, bool lhs_in_order)
      : UnaryPrimitive(stream),
        quantization_(std::move(quantization)),
        gathered_(gathered),
        lhs_in_order_(lhs_in_order) {}

  void eval_cpu(const std::vector<array>& inputs, array& out) override {
    out.set_data(mx::allocator::malloc(out.nbytes()));
    if (out.size() == 0) {
      return;
    }
    auto& encoder = mx::cpu::get_command_encoder(stream());
    std::vector<array> held = {array::unsafe_weak_copy(out)};
    Product product = {};
    product.type = float_of(out.dtype());
    product.n = out.shape(-1);
    product.k = inputs[0].shape(-1);
    for (auto& input : inputs) {
      // Only a quantized matrix and its numbers must lie in order.
      bool any_order = held.size() == 1 || !quantization_ || held.size() >= numbers_end();
      held.push_back(array::unsafe_weak_copy(any_order ? input : in_order(input, encoder)));
    }
    product.x_step = held[1].strides(-1);
    auto& w = held[2];
    if (quantization_) {
      product.format = *format_of(*quantization_);
      product.group = quantization_->group;
      product.transposed = quantization_->transposed;
      product.row_bytes = static_cast<int64_t>(w.shape(-1)) * 4;
    } else {
      auto type = product.type;
      product.format = type == Float::f32 ? Format::f32 : type == Float::f16 ? Format::f16 : Format::bf16;
      // Numbers of w follow each other along k, or along n; else a copy puts them in order.
      bool along_k = w.strides(-2) == 1 || w.shape(-2) == 1;
      bool along_n = w.strides(-1) == 1 || w.shape(-1) == 1;
      if (!along_k && !along_n) {
        w = array::unsafe_weak_copy(in_order(w, encoder));
      }
      product.transposed = along_k;
      product.row_bytes = w.strides(along_k ? -1 : -2) * static_cast<int64_t>(w.itemsize());
    }
    encoder.dispatch([held = std::move(held), product, quantized = quantization_.has_value(),
                      affine = quantization_ && quantization_->is_affine(), gathered = gathered_]() mutable {
      auto& out = held[0];
      auto& x = held[1];
      auto& w = held[2];
      auto last = held.size() - 1;
      auto meetings = gathered ? meetings_of(x, w, out, held[last - 1], held[last]) : meetings_of(x, w, out);
      int64_t matrix = static_cast<int64_t>(w.shape(-1)) * w.shape(-2);
      int64_t numbers = quantized ? static_cast<int64_t>(held[3].shape(-1)) * held[3].shape(-2) : 0;
      run(product, meetings, [&](int64_t offset) {
        Job job = {};
        job.x = x.data<void>();
        job.out = out.data<void>();
        job.w = w.data<char>() + offset * static_cast<int64_t>(w.itemsize());
        if (quantized) {
          int64_t at = offset / matrix * numbers * static_cast<int64_t>(held[3].itemsize());
          job.scales = held[3].data<char>() + at;
          job.biases = affine ? held[4].data<char>() + at : nullptr;
        }
        return job;
      });
    });
  }

  void eval_gpu(const std::vector<array>&, array&) override {
    throw std::runtime_error("a CPU kernel was asked to run on a GPU");
  }

  // Along x by the product with the other side of w; along the rest as MLX does it.
  std::vector<array> vjp(
      const std::vector<array>& primals, const std::vector<array>& cotangents, const std::vector<int>& argnums,
      const std::vector<array>&) override {
    std::vector<array> result;
    for (int argnum : argnums) {
      result.push_back(
          argnum == 0                               ? gradient_of_x(primals, cotangents[0])
              : argnum == 1 && !quantization_ && !gathered_ ? gradient_of_w(primals, cotangents[0])
                                                    : mlx_gradient(primals, cotangents[0], argnum));
    }
    return result;
  }

  std::vector<array> jvp(
      const std::vector<array>& primals, const std::vector<array>& tangents,
      const std::vector<int>& argnums) override {
    std::vector<array> along;
    for (int argnum : argnums) {
      along.push_back(primals[argnum]);
    }
    auto function = [&](const std::vector<array>& values) {
      auto inputs = primals;
      for (size_t i = 0; i < argnums.size(); ++i) {
        inputs[argnums[i]] = values[i];
      }
      return std::vector<array>{mlx_product(inputs)};
    };
    return mx::jvp(function, along, tangents).second;
  }

  std::pair<std::vector<array>, std::vector<int>> vmap(
      const std::vector<array>& inputs, const std::vector<int>& axes) override {
    auto function = [this](const std::vector<array>& values) { return std::vector<array>{mlx_product(values)}; };
    return {mx::vmap(function, axes, {0})(inputs), {0}};
  }

  const char* name() const override {
    return "CpuProduct";
  }

  bool is_equivalent(const mx::Primitive& other) const override {
    auto& product = static_cast<const CpuProduct&>(other);
    return quantization_ == product.quantization_ && gathered_ == product.gathered_ &&
        lhs_in_order_ == product.lhs_in_order_;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<array>& inputs) override {
    auto& w = inputs[1];
    int outputs = !quantization_       ? w.shape(-1)
        : quantization_->transposed ? w.shape(-2)
                                    : static_cast<int>(static_cast<int64_t>(w.shape(-1)) * 32 / quantization_->bits);
    mx::Shape shape = gathered_ ? inputs.back().shape() : inputs[0].shape();
    if (gathered_) {
      shape.push_back(inputs[0].shape(-2));
      shape.push_back(outputs);
    } else {
      shape.back() = outputs;
    }
    return {std::move(shape)};
  }

 private:
  // How many arrays, the output included, come before the indices.
  size_t numbers_end() const {
    return !quantization_ ? 3 : quantization_->is_affine() ? 5 : 4;
  }

  std::optional<array> biases(const std::vector<array>& inputs) const {
    return quantization_ && quantization_->is_affine() ? std::optional(inputs[3]) : std::nullopt;
  }

  // The same in MLX's operations.
  array mlx_product(const std::vector<array>& inputs) {
    auto lhs = gathered_ ? std::optional(inputs[inputs.size() - 2]) : std::nullopt;
    auto rhs = gathered_ ? std::optional(inputs.back()) : std::nullopt;
    if (!quantization_) {
      return gathered_ ? mx::gather_mm(inputs[0], inputs[1], lhs, rhs, false, stream())
                       : mx::matmul(inputs[0], inputs[1], stream());
    }
    auto& [group, bits, mode, transposed] = *quantization_;
    return gathered_ ? mx::gather_qmm(
                           inputs[0], inputs[1], inputs[2], biases(inputs), lhs, rhs, transposed, group, bits, mode,
                           std::nullopt, false, stream())
                     : mx::quantized_matmul(
                           inputs[0], inputs[1], inputs[2], biases(inputs), transposed, group, bits, mode, stream());
  }

  array mlx_gradient(const std::vector<array>& primals, const array& cotangent, int argnum) {
    auto function = [&](const std::vector<array>& values) {
      auto inputs = primals;
      inputs[argnum] = values[0];
      return std::vector<array>{mlx_product(inputs)};
    };
    return mx::vjp(function, {primals[argnum]}, {cotangent}).second[0];
  }

  array gradient_of_x(const std::vector<array>& primals, const array& cotangent) {
    auto& x = primals[0];
    auto& w = primals[1];
    auto turned = [&] { return mx::swapaxes(w, -1, -2, stream()); };
    if (!gathered_) {
      return quantization_ ? cpu::quantized_matmul(
                                 cotangent, w, primals[2], biases(primals), !quantization_->transposed,
                                 quantization_->group, quantization_->bits, quantization_->mode, stream())
                           : cpu::matmul(cotangent, turned(), stream());
    }
    auto& lhs = primals[primals.size() - 2];
    auto& rhs = primals.back();
    auto gradient = quantization_
        ? cpu::gather_qmm(
              cotangent, w, primals[2], biases(primals), std::nullopt, rhs, !quantization_->transposed,
              quantization_->group, quantization_->bits, quantization_->mode, false, stream())
        : cpu::gather_mm(cotangent, turned(), std::nullopt, rhs, false, stream());
    if (lhs_in_order_ && gradient.size() == x.size()) {
      return mx::reshape(gradient, x.shape(), stream());
    }
    auto zeros = mx::flatten(mx::zeros_like(x, stream()), 0, -3, stream());
    auto sum = mx::scatter_add(zeros, lhs, mx::expand_dims(gradient, -3, stream()), 0, stream());
    return mx::reshape(sum, x.shape(), stream());
  }

  array gradient_of_w(const std::vector<array>& primals, const array& cotangent) {
    auto x = primals[0];
    auto c = cotangent;
    if (primals[1].ndim() == 2 && x.ndim() > 2) {
      x = mx::flatten(x, 0, -2, stream());
      c = mx::flatten(c, 0, -2, stream());
    }
    return cpu::matmul(mx::swapaxes(x, -1, -2, stream()), c, stream());
  }

  std::optional<Quantization> quantization_;
  bool gathered_;
  bool lhs_in_order_;
};

// Stands in for a product of MLX's, whose arguments it has checked and converted.
array instead_of(const array& theirs, std::optional<Quantization> quantization, bool gathered, bool lhs_in_order,
                 mx::StreamOrDevice s) {
  return array(
      theirs.shape(), theirs.dtype(),
      std::make_shared<CpuProduct>(mx::to_stream(s), std::move(quantization), gathered, lhs_in_order),
      theirs.inputs());
}

} // namespace

bool takes(mx::StreamOrDevice s) {
  return enabled() && mx::to_stream(s).device == mx::Device::cpu;
}

array matmul(const array& a, const array& b, mx::StreamOrDevice s) {
  bool fits = takes(s) && a.ndim() >= 2 && b.ndim() >= 2 && a.dtype() == b.dtype() && is_known(a.dtype()) &&
      a.shape(-1) == b.shape(-2) && a.shape(-1) > 0;
  // Many rows in float32 are what a BLAS is best at; few are a matter of reading b.
  bool ours = fits && (a.dtype() != mx::float32 || (b.ndim() == 2 && a.size() / a.shape(-1) <= few_rows));
  if (!ours) {
    return mx::matmul(a, b, s);
  }
  std::vector<array> inputs = {a, b};
  if (b.ndim() > 2) {
    auto batches = mx::broadcast_shapes(
        mx::Shape(a.shape().begin(), a.shape().end() - 2), mx::Shape(b.shape().begin(), b.shape().end() - 2));
    for (auto& input : inputs) {
      auto shape = batches;
      shape.insert(shape.end(), input.shape().end() - 2, input.shape().end());
      input = mx::broadcast_to(input, shape, s);
    }
  }
  auto shape = inputs[0].shape();
  shape.back() = b.shape(-1);
  return array(
      std::move(shape), a.dtype(), std::make_shared<CpuProduct>(mx::to_stream(s), std::nullopt, false, false),
      std::move(inputs));
}

array gather_mm(
    const array& a, const array& b, const std::optional<array>& lhs_indices, const std::optional<array>& rhs_indices,
    bool sorted, mx::StreamOrDevice s) {
  if (!lhs_indices && !rhs_indices) {
    return cpu::matmul(a, b, s);
  }
  auto theirs = mx::gather_mm(a, b, lhs_indices, rhs_indices, sorted, s);
  if (!takes(s) || a.ndim() < 2 || b.ndim() < 2 || !is_known(theirs.dtype())) {
    return theirs;
  }
  return instead_of(theirs, std::nullopt, true, !lhs_indices, s);
}

array quantized_matmul(
    const array& x, const array& w, const array& scales, const std::optional<array>& biases, bool transpose,
    std::optional<int> group_size, std::optional<int> bits, const std::string& mode, mx::StreamOrDevice s) {
  auto theirs = mx::quantized_matmul(x, w, scales, biases, transpose, group_size, bits, mode, s);
  auto how = quantization(group_size, bits, mode, transpose);
  if (!takes(s) || !is_known(theirs.dtype()) || !format_of(how)) {
    return theirs;
  }
  return instead_of(theirs, std::move(how), false, false, s);
}

array gather_qmm(
    const array& x, const array& w, const array& scales, const std::optional<array>& biases,
    const std::optional<array>& lhs_indices, const std::optional<array>& rhs_indices, bool transpose,
    std::optional<int> group_size, std::optional<int> bits, const std::string& mode, bool sorted,
    mx::StreamOrDevice s) {
  if (!lhs_indices && !rhs_indices) {
    return cpu::quantized_matmul(x, w, scales, biases, transpose, group_size, bits, mode, s);
  }
  auto theirs = mx::gather_qmm(
      x, w, scales, biases, lhs_indices, rhs_indices, transpose, group_size, bits, mode, std::nullopt, sorted, s);
  auto how = quantization(group_size, bits, mode, transpose);
  if (!takes(s) || !is_known(theirs.dtype()) || !format_of(how)) {
    return theirs;
  }
  return instead_of(theirs, std::move(how), true, !lhs_indices, s);
}

} // namespace mlxlm::cpu
