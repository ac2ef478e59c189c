// What the primitives of a layer share.
#pragma once

#include <algorithm>

#include "abi.h"
#include "cpu/arrays.h"
#include "cpu/primitives.h"
#include "cpu/thread_pool.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"

namespace mlxlm::cpu {

// No gradient, no GPU, no batching.
class LayerPrimitive : public mx::Primitive {
 public:
  using Primitive::Primitive;

  void eval_gpu(const std::vector<array>&, std::vector<array>&) override {
    throw std::runtime_error("a CPU kernel was asked to run on a GPU");
  }
};

// Whether a transformation is under way, which would need a gradient.
template <class... Arrays>
bool traced(const Arrays&... arrays) {
  return (arrays.is_tracer() || ...);
}
inline bool traced(const std::optional<array>& a) {
  return a && a->is_tracer();
}

inline void allocate(array& out) {
  out.set_data(mx::allocator::malloc(out.nbytes()));
}

inline char* row_of(array& a, int64_t row, int64_t dims) {
  return a.data<char>() + row * dims * static_cast<int64_t>(a.itemsize());
}

// Rows are handed to the threads in pieces of about so many numbers.
constexpr int64_t piece = 1 << 14;

// Calls body(row) for all rows of `dims` numbers.
template <class Body>
void for_rows(int64_t rows, int64_t dims, Body&& body) {
  int64_t together = std::max(int64_t{1}, piece / std::max(dims, int64_t{1}));
  parallel_for((rows + together - 1) / together, [&](int64_t i) {
    for (int64_t row = i * together; row < std::min(rows, (i + 1) * together); ++row) {
      body(row);
    }
  });
}

} // namespace mlxlm::cpu
