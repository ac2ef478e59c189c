// The kernels' checks: each goes through its cases and reports what differs from a plain loop in double precision.
#pragma once

#include <string>

namespace mlxlm::check {

// `few`: still every path that threads share and every format, for what runs slowly.
enum class Sweep { all, few };

void check_threads(Sweep sweep);
void check_products(Sweep sweep);
void check_blocks(Sweep sweep);
void check_attention(Sweep sweep);
void check_recurrence(Sweep sweep);
void check_rows(Sweep sweep);

// Counts a comparison, and reports it where |got - wanted| exceeds `tolerance` or one of them alone is no number.
void expect_near(double got, double wanted, double tolerance, const std::string& what);
void expect(bool holds, const std::string& what);

} // namespace mlxlm::check
