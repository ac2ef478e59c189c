// What the primitives of one token are put together from while an operation runs: matrices, a feed-forward block,
// attention. Each takes its arrays from the operation's inputs, in their order.
#pragma once

#include "cpu/layer_primitive.h"
#include "cpu/product.h"
#include "cpu/rows.h"
#include "cpu/token_primitives.h"

namespace mlxlm::cpu {

// How many numbers a row has; 0 where those are no whole blocks.
int64_t width_of(const MatrixLayout& layout, const array& w);

// An operation's inputs, one after the other, as what it may hold while it waits.
class Inputs {
 public:
  Inputs(const std::vector<array>& inputs, mx::cpu::CommandEncoder& encoder) : inputs_(inputs), encoder_(encoder) {}

  array as_it_lies();
  array ordered();
  // Memory for a row between two products.
  array row(int64_t count, mx::Dtype dtype);

 private:
  const std::vector<array>& inputs_;
  mx::cpu::CommandEncoder& encoder_;
  size_t next_ = 0;
};

struct HeldMatrix {
  Product product;
  array w;
  std::optional<array> scales;
  std::optional<array> biases;
  std::optional<array> bias;

  HeldMatrix(const MatrixLayout& layout, mx::Dtype dtype, Inputs& inputs);
};

// Matrices whose rows follow each other.
class HeldMatrices {
 public:
  HeldMatrices(const std::vector<MatrixLayout>& layouts, mx::Dtype dtype, Inputs& inputs);

  // out (N) = w x + bias
  void multiply(const void* x, void* out) const;
  int64_t rows() const;
  int64_t width() const {
    return parts_[0].product.k;
  }

 private:
  std::vector<HeldMatrix> parts_;
};

struct FeedLayout {
  std::vector<MatrixLayout> joint;
  MatrixLayout last;
  Gate kind;

  explicit FeedLayout(const FeedForward& block);
  bool operator==(const FeedLayout&) const = default;
};

class HeldFeed {
 public:
  HeldFeed(const FeedLayout& layout, mx::Dtype dtype, Inputs& inputs);

  // out (N) of x (K)
  void operator()(const void* x, void* out);

 private:
  HeldMatrices joint_;
  HeldMatrices last_;
  mx::Dtype dtype_;
  Gate kind_;
  array entering_;
  array opened_;
};

struct AttendLayout {
  std::vector<MatrixLayout> joint;
  MatrixLayout last;
  Heads heads;
  bool has_freqs;

  explicit AttendLayout(const TokenAttention& attention);
};

class HeldAttention {
 public:
  HeldAttention(const AttendLayout& layout, mx::Dtype dtype, Inputs& inputs);

  // out (N) of x (K). Writes the token's key and value.
  void operator()(const void* x, void* out);

 private:
  // A head's row `used` of keys or values.
  char* new_row(array& rows, int head) const;
  // Queries to their buffer, the token's key and value to row `used`, turned.
  void place();
  void attend();

  HeldMatrices joint_;
  HeldMatrices last_;
  Heads heads_;
  array keys_;
  array values_;
  std::vector<array> weights_; // of the norms over queries and keys
  std::optional<array> freqs_;
  array entering_;
  array queries_;
  array attended_;
};

} // namespace mlxlm::cpu
