#include "cpu/arrays.h"

#include <cstring>

#include "mlx/allocator.h"

namespace mlxlm::cpu {

bool is_known(mx::Dtype dtype) {
  return dtype == mx::float32 || dtype == mx::float16 || dtype == mx::bfloat16;
}

Float float_of(mx::Dtype dtype) {
  return dtype == mx::float32 ? Float::f32 : dtype == mx::float16 ? Float::f16 : Float::bf16;
}

std::vector<int64_t> offsets_of(const mx::Shape& shape, const mx::Strides& strides, int skipped) {
  std::vector<int64_t> offsets = {0};
  for (int axis = 0; axis < static_cast<int>(shape.size()) - skipped; ++axis) {
    std::vector<int64_t> next;
    next.reserve(offsets.size() * shape[axis]);
    for (int64_t offset : offsets) {
      for (int i = 0; i < shape[axis]; ++i) {
        next.push_back(offset + i * strides[axis]);
      }
    }
    offsets = std::move(next);
  }
  return offsets;
}

array in_order(const array& a, mx::cpu::CommandEncoder& encoder) {
  if (a.flags().row_contiguous) {
    return a;
  }
  array copy(a.shape(), a.dtype(), nullptr, {});
  copy.set_data(mx::allocator::malloc(copy.nbytes()));
  encoder.add_temporary(copy);
  encoder.dispatch([from = array::unsafe_weak_copy(a), to = array::unsafe_weak_copy(copy)]() mutable {
    auto source = from.data<char>();
    auto target = to.data<char>();
    size_t size = from.itemsize();
    for (int64_t offset : offsets_of(from.shape(), from.strides(), 1)) {
      for (int i = 0; i < from.shape(-1); ++i, target += size) {
        std::memcpy(target, source + (offset + i * from.strides(-1)) * static_cast<int64_t>(size), size);
      }
    }
  });
  return copy;
}

} // namespace mlxlm::cpu
