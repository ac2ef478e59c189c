#include "cpu/softmax.h"

#include "cpu/layer_primitive.h"
#include "cpu/rows.h"

namespace mlxlm::cpu {
namespace {

// Input: x (…, N). Output: as large, or (…, 1) for the sum's logarithm.
class Softmax : public LayerPrimitive {
 public:
  Softmax(mx::Stream stream, bool only_sum) : LayerPrimitive(stream), only_sum_(only_sum) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    std::vector<array> held = {
        array::unsafe_weak_copy(outputs[0]), array::unsafe_weak_copy(in_order(inputs[0], encoder))};
    encoder.dispatch([held = std::move(held), only_sum = only_sum_]() mutable {
      auto& out = held[0];
      auto& x = held[1];
      int64_t dims = x.shape(-1);
      auto type = float_of(x.dtype());
      auto& kernels = row_kernels();
      for_rows(x.size() / dims, dims, [&](int64_t row) {
        if (only_sum) {
          kernels.log_sum_exp(type, row_of(x, row, dims), row_of(out, row, 1), dims);
        } else {
          kernels.softmax(type, row_of(x, row, dims), row_of(out, row, dims), dims);
        }
      });
    });
  }

  const char* name() const override {
    return only_sum_ ? "CpuLogSumExp" : "CpuSoftmax";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    return only_sum_ == static_cast<const Softmax&>(other).only_sum_;
  }

 private:
  bool only_sum_;
};

} // namespace

bool takes_softmax(const array& x, const std::vector<int>& axes, mx::StreamOrDevice s) {
  bool last = axes.size() == 1 && (axes[0] == -1 || axes[0] == static_cast<int>(x.ndim()) - 1);
  return takes(s) && last && x.ndim() > 0 && x.size() > 0 && is_known(x.dtype()) && !traced(x);
}

array softmax(const array& x, mx::StreamOrDevice s) {
  return array(x.shape(), x.dtype(), std::make_shared<Softmax>(mx::to_stream(s), false), {x});
}

array logsumexp(const array& x, mx::StreamOrDevice s) {
  auto shape = x.shape();
  shape.back() = 1;
  return array(std::move(shape), x.dtype(), std::make_shared<Softmax>(mx::to_stream(s), true), {x});
}

} // namespace mlxlm::cpu
