// Products of rows with a matrix, plain or quantized: what matmul, quantized_matmul and their gathered forms come down
// to. No MLX here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/block_types.h"
#include "cpu/dtypes.h"
#include "cpu/isa.h"

namespace mlxlm::cpu {

// out (m, n) = x (m, k) × w; sums are taken in float32.
struct Product {
  Float type; // of x, out, and an affine format's scales and biases
  Format format; // of w
  int group; // how many of w's numbers share a scale
  bool transposed; // w is (n, k), its rows along k; else (k, n)
  int64_t n;
  int64_t k;
  int64_t row_bytes; // from one row of w to the next
  int64_t x_step; // elements from one number of a row of x to the next
  // Of a matrix of blocks, (n, k).
  BlockType block_type;
  int block_numbers;
  int block_bytes;
  BlockTables tables;
};

// Says that w is (n, k) in blocks of a type.
void set_blocks(Product& product, BlockType type);

// One matrix and the rows that meet it, as elements from x and out.
struct Job {
  const void* x;
  void* out;
  const void* w;
  const void* scales;
  const void* biases;
  const int64_t* x_rows;
  const int64_t* out_rows;
  int64_t rows;
};

// How one job is cut up. Its rows are packed in blocks; then w is gone through in panels, each a task with some blocks.
struct Plan {
  bool dots; // few rows: sums along w's rows, without unpacking them to memory
  int block_rows;
  int64_t blocks;
  int64_t blocks_per_task;
  int64_t panel;
  int64_t panels;
  size_t block_bytes;
  int threads; // that take the panels in turn
};

// What is compiled per instruction set.
struct ProductKernels {
  Plan (*plan)(const Product& product, int64_t rows, int threads);
  // Lays the rows of one block out as the product reads them.
  void (*pack)(const Product& product, const Job& job, const Plan& plan, int64_t block, void* packed);
  // Multiplies packed blocks [first, last) with one panel and writes the outputs.
  void (*multiply)(
      const Product& product, const Job& job, const Plan& plan, const void* packed, int64_t panel, int64_t first,
      int64_t last);
};

MLXLM_PER_ISA(ProductKernels, product_kernels)

// Does all jobs of one product, on all threads.
void run(const Product& product, const std::vector<Job>& jobs);

// A job and what product it is of.
struct Work {
  const Product* product;
  Job job;
};

// Does them all in one parallel loop.
void run(const std::vector<Work>& works);

} // namespace mlxlm::cpu
