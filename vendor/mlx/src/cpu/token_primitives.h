// One token through a layer, or half of one, as one operation: a step of a small model costs more in operations than in
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
  int block_type; // of its blocks, where it is in such; else 0
  bool biased;

  size_t arrays() const;
};

struct Matrix {
  std::vector<array> arrays;
  MatrixLayout layout;
};

// What of a layer's attention is not in its matrices.
struct Heads {
  int heads;
  int kv_heads;
  int dims; // of a head
  int rotated; // 0 where heads are not turned
  int used; // rows of keys and values that have tokens
  int row; // the one that the token's own go to: behind those, or one of them that it replaces
  float scale; // of the scores
  float eps; // of the norms over heads
  Angles angles;
  bool normed;
};

// Whether the row that is written is behind those in use, or one of them.
inline bool row_fits(const Heads& heads) {
  return heads.used >= 0 && heads.row >= 0 && heads.row <= heads.used;
}
// Whether keys or values have the rows that are read and written.
inline bool has_rows(const array& rows, const Heads& heads) {
  return rows.shape(2) >= heads.used && rows.shape(2) > heads.row;
}

// What a feed-forward block is made of: joint (2 M, K), gates then values, in one matrix or several, and last (N, M).
struct FeedForward {
  std::vector<Matrix> joint;
  Matrix last;
  bool gelu; // by tanh; else silu
};

// What attention is made of: joint ((H + 2 Hkv) D, K), in one matrix or several, last (N, H D), keys and values (1, Hkv, S, D), weights (D) of the
// norms over heads, wavelengths. `group`: ranks that each have some of the heads, and of a layer's feed-forward block a part;
// results are summed over them.
struct TokenAttention {
  std::vector<Matrix> joint;
  Matrix last;
  array keys;
  array values;
  std::optional<array> query_weight;
  std::optional<array> key_weight;
  std::optional<array> freqs;
  Heads heads;
  std::optional<mx::distributed::Group> group;
};

// x (1, 1, K) → (1, 1, N)
bool takes_feed_token(const array& x, const FeedForward& block, mx::StreamOrDevice s);
array feed_token(const array& x, const FeedForward& block, mx::StreamOrDevice s);

// x (1, 1, K) → (1, 1, N). The token's own key and value are written to `row` of keys and values, in place: the caller
// is their only holder, and reads them when this result has been evaluated. MLX's donation cannot do that for two
// buffers of an operation that the queue still holds.
bool takes_attend_token(const array& x, const TokenAttention& attention, mx::StreamOrDevice s);
array attend_token(const array& x, const TokenAttention& attention, mx::StreamOrDevice s);

// An RMS norm of rows (K), by its weight (K).
struct RowNorm {
  array weight;
  float eps;
};

// Of what attention and the feed-forward block give, ahead of its addition.
struct NormsBehind {
  RowNorm attention;
  RowNorm feed;
};

// A whole layer on x + delta (1, 1, K), or x where there is no delta: a norm, attention, and what it gives added; another norm and
// the feed-forward block → what the block's result still has to be added to, and that result.
struct TokenLayer {
  RowNorm first;
  TokenAttention attention;
  RowNorm second;
  FeedForward feed;
  std::optional<NormsBehind> behind;
};
// What a layer's norms add, so that none divides by zero.
struct Epsilons {
  float first = 0;
  float second = 0;
  float behind_attention = 0;
  float behind_feed = 0;

  Epsilons() = default;
  explicit Epsilons(const TokenLayer& layer) : first(layer.first.eps), second(layer.second.eps) {
    if (layer.behind) {
      behind_attention = layer.behind->attention.eps;
      behind_feed = layer.behind->feed.eps;
    }
  }
};

// Whether `fits` takes the weights of all its norms.
template <class Fits>
bool norms_fit(const TokenLayer& layer, Fits fits) {
  auto& [first, attention, second, feed, behind] = layer;
  return fits(first.weight) && fits(second.weight) &&
      (!behind || (fits(behind->attention.weight) && fits(behind->feed.weight)));
}

bool takes_layer_token(
    const array& x, const std::optional<array>& delta, const TokenLayer& layer, mx::StreamOrDevice s);
std::vector<array> layer_token(
    const array& x, const std::optional<array>& delta, const TokenLayer& layer, mx::StreamOrDevice s);

} // namespace mlxlm::cpu
