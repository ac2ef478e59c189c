// Products with quantized weights on CUDA, where there is more than one row. The caller has asked `on_gpu` first: a CPU's
// products should not pay for the questions here.
#pragma once

#include "abi.h"

namespace mlxlm::cuda {

struct Packed {
  array w;
  array scales;
  std::optional<array> biases;
  int group;
  int bits;
  std::string mode;
};

// x (…, K) in half precision times packed weights of one matrix.
bool takes_quantized_rows(const array& x, const Packed& weight, bool transpose);

// x (…, K) and w (N, K) transposed, or (K, N) → (…, N). Has a gradient for x alone.
array quantized_rows(const array& x, const Packed& weight, bool transpose, mx::StreamOrDevice s);

// parts (P, rows, N) in float32, added: of this shape, or (rows, N).
array sum_parts(const array& parts, mx::Shape shape, mx::Dtype dtype, mx::StreamOrDevice s);
array sum_parts(const array& parts, mx::Dtype dtype, mx::StreamOrDevice s);

// The parts that `sum` will be of, where it has not been computed yet.
std::optional<array> parts_of(const array& sum);

// x (…, 1, K) times the expert of each use, w (experts, N, K) transposed. Where `sorted`, x has a row for each use.
bool takes_expert_rows(const array& x, const Packed& weight, const array& indices, bool sorted);
array expert_rows(const array& x, const Packed& weight, const array& indices, bool sorted, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
