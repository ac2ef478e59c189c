#include "cpu/mask_logits.h"

#include <algorithm>

#include "cpu/layer_primitive.h"

namespace mlxlm::cpu {
namespace {

// Numbers are moved as their bits.
template <class Bits>
void mask_row(const Bits* from, const uint32_t* words, Bits* to, int64_t count, Bits never) {
  for (int64_t start = 0; start < count; start += 32) {
    uint32_t word = words[start / 32];
    int64_t here = std::min<int64_t>(32, count - start);
    if (word == 0) {
      std::fill_n(to + start, here, never);
    } else {
      for (int64_t i = 0; i < here; ++i) {
        to[start + i] = word >> i & 1 ? from[start + i] : never;
      }
    }
  }
}

class MaskLogits : public LayerPrimitive {
 public:
  using LayerPrimitive::LayerPrimitive;

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    std::vector<array> held = {
        array::unsafe_weak_copy(outputs[0]), array::unsafe_weak_copy(in_order(inputs[0], encoder)),
        array::unsafe_weak_copy(in_order(inputs[1], encoder))};
    encoder.dispatch([held = std::move(held)]() mutable {
      auto& out = held[0];
      auto& logits = held[1];
      auto& bits = held[2];
      int64_t dims = logits.shape(-1);
      int64_t words = bits.shape(-1);
      auto type = float_of(logits.dtype());
      for (int64_t row = 0; row < logits.shape(0); ++row) {
        auto mask = bits.data<uint32_t>() + row * words;
        auto from = row_of(logits, row, dims);
        auto to = row_of(out, row, dims);
        if (type == Float::f32) {
          mask_row(reinterpret_cast<uint32_t*>(from), mask, reinterpret_cast<uint32_t*>(to), dims, 0xff800000u);
        } else {
          uint16_t never = type == Float::f16 ? 0xfc00 : 0xff80;
          mask_row(reinterpret_cast<uint16_t*>(from), mask, reinterpret_cast<uint16_t*>(to), dims, never);
        }
      }
    });
  }

  const char* name() const override {
    return "CpuMaskLogits";
  }
  bool is_equivalent(const mx::Primitive&) const override {
    return true;
  }
};

} // namespace

bool takes_mask_logits(const array& logits, const array& bits, mx::StreamOrDevice s) {
  return takes(s) && is_known(logits.dtype()) && !traced(logits, bits);
}

array mask_logits(const array& logits, const array& bits, mx::StreamOrDevice s) {
  return array(logits.shape(), logits.dtype(), std::make_shared<MaskLogits>(mx::to_stream(s)), {logits, bits});
}

} // namespace mlxlm::cpu
