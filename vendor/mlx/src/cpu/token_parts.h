// What the primitives of one token are put together from while an operation runs: matrices, a feed-forward block,
// attention. Each takes its arrays from those that the operation holds, in their order.
#pragma once

#include <deque>

#include "cpu/layer_primitive.h"
#include "cpu/product.h"
#include "cpu/rows.h"
#include "cpu/token_primitives.h"

namespace mlxlm::cpu {

// How many numbers a row has; 0 where those are no whole blocks.
int64_t width_of(const MatrixLayout& layout, const array& w);

// What an operation is done with, one array after the other, as addresses: it holds the arrays while it waits.
class Inputs {
 public:
  Inputs(const std::vector<array>& inputs, mx::cpu::CommandEncoder& encoder) : inputs_(inputs), encoder_(encoder) {}

  const array& as_it_lies() {
    return inputs_[next_++];
  }
  // Its elements one after the other.
  const array& ordered();
  // Room for a row between two products.
  size_t row(int64_t count, mx::Dtype dtype);
  // How much room rows take.
  size_t row_bytes() const {
    return row_bytes_;
  }

 private:
  const std::vector<array>& inputs_;
  mx::cpu::CommandEncoder& encoder_;
  std::deque<array> copies_; // references to them stay good
  size_t next_ = 0;
  size_t row_bytes_ = 0;
};

struct HeldMatrix {
  Product product;
  const void* w;
  const void* scales = nullptr;
  const void* biases = nullptr;
  const void* bias = nullptr;

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
};

class HeldFeed {
 public:
  HeldFeed(const FeedLayout& layout, mx::Dtype dtype, Inputs& inputs);

  // out (N) of x (K), with room for rows.
  void operator()(const void* x, void* out, char* room) const;

 private:
  HeldMatrices joint_;
  HeldMatrices last_;
  Float type_;
  Gate kind_;
  size_t entering_;
  size_t opened_;
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

  // out (N) of x (K), with room for rows. Writes the token's key and value.
  void operator()(const void* x, void* out, char* room) const;

 private:
  // Keys or values.
  struct Rows {
    char* data;
    int64_t strides[3];

    explicit Rows(const array& rows);
    char* at(int64_t head, int64_t row, int64_t size) const {
      return data + (head * strides[1] + row * strides[2]) * size;
    }
  };

  // Queries to their room, the token's key and value to its row, turned.
  void place(char* room) const;
  void attend(char* room) const;

  HeldMatrices joint_;
  HeldMatrices last_;
  Heads heads_;
  Float type_;
  int64_t size_; // of a number
  Rows keys_;
  Rows values_;
  const void* weights_[2] = {}; // of the norms over queries and keys
  std::optional<array> freqs_;
  size_t entering_;
  size_t queries_;
  size_t attended_;
};

} // namespace mlxlm::cpu
