// Which rows of a product's x meet which of its matrices.
#pragma once

#include <functional>

#include "abi.h"
#include "cpu/product.h"

namespace mlxlm::cpu {

// A row of x, where its result goes, and the matrix that it meets, all as offsets in elements.
struct Meeting {
  int64_t x;
  int64_t out;
  int64_t w;
};

// Rows of x against matrices w by their batch axes.
std::vector<Meeting> meetings_of(const array& x, const array& w, const array& out);

// The same chosen by indices. @throws std::out_of_range for one that there is no matrix for
std::vector<Meeting> meetings_of(const array& x, const array& w, const array& out, const array& lhs, const array& rhs);

// Does the product, one job a matrix: rows that meet the same one are brought together.
void run(const Product& product, std::vector<Meeting>& meetings, const std::function<Job(int64_t w)>& job_of);

} // namespace mlxlm::cpu
