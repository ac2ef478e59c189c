// One token through half a layer as one operation each: a step of a small model costs more in operations than in
// arithmetic. Each has the numbers that the operations it replaces have, to the bit.
#pragma once

#include "abi.h"
#include "cpu/packing.h"
#include "cpu/rotation_table.h"

namespace mlxlm::cpu {

// How a layer's matrix (N, K) lies in a list of arrays: its numbers, their scales and biases where it is packed, then
// the layer's own bias (N) where it has one.
struct MatrixLayout {
  std::optional<Quantization> packing;
  bool biased;

  bool operator==(const MatrixLayout&) const = default;
  size_t arrays() const;
};

// A matrix as the ABI gives it; `how`: group (0 where it is plain), bits, mode (as in `packings` of src/mlx), whether
// there is a bias.
struct Matrix {
  std::vector<array> arrays;
  MatrixLayout layout;

  Matrix(std::vector<array> arrays, const std::vector<int>& how);
};

// What of a layer's attention is not in its matrices.
struct Heads {
  int heads;
  int kv_heads;
  int dims; // of a head
  int rotated; // 0 where heads are not turned
  int used; // rows of keys and values that are written
  float scale; // of the scores
  float eps; // of the norms over heads
  Angles angles;
  bool normed;

  bool operator==(const Heads&) const = default;
};

// x (1, 1, K), joint (2 M, K): gates then values, last (N, M) → (1, 1, N).
bool takes_feed_token(const array& x, const Matrix& joint, const Matrix& last, mx::StreamOrDevice s);
array feed_token(bool gelu, const array& x, const Matrix& joint, const Matrix& last, mx::StreamOrDevice s);

// x (1, 1, K), joint ((H + 2 Hkv) D, K), last (N, H D), keys and values (1, Hkv, S, D) → (1, 1, N). The token's own key and
// value are written to row `used` of those, in place: the caller is their only holder, and reads them when this result
// has been evaluated. MLX's donation cannot do that for two buffers of an operation that is still held by the queue.
bool takes_attend_token(
    const array& x, const Matrix& joint, const Matrix& last, const array& keys, const array& values,
    const std::optional<array>& query_weight, const std::optional<array>& key_weight,
    const std::optional<array>& freqs, const Heads& heads, mx::StreamOrDevice s);
array attend_token(
    const array& x, const Matrix& joint, const Matrix& last, const array& keys, const array& values,
    const std::optional<array>& query_weight, const std::optional<array>& key_weight,
    const std::optional<array>& freqs, const Heads& heads, mx::StreamOrDevice s);

} // namespace mlxlm::cpu
