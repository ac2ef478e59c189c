// Products for one instruction set: a few rows as dots, more of them in tiles.
#include "cpu/block_products.h"
#include "cpu/dots.h"
#include "cpu/product.h"
#include "cpu/tiles.h"

namespace mlxlm::cpu::MLXLM_ISA {
namespace {

Plan plan(const Product& product, int64_t rows, int threads) {
  if (product.format == Format::blocks) {
    return plan_blocks(product, rows, threads);
  }
  Plan result = {};
  with_format(product.format, [&](auto format) {
    using Fmt = decltype(format);
    bool dots = product.transposed && rows <= most_dots;
    result = dots ? plan_dots<Fmt>(product, rows, threads) : plan_tiles<Fmt>(product, rows, threads);
  });
  return result;
}

void pack(const Product& product, const Job& job, const Plan& plan, int64_t block, void* packed) {
  if (product.format == Format::blocks) {
    return pack_blocks(product, job, plan, block, packed);
  }
  with_format(product.format, [&](auto format) {
    using Fmt = decltype(format);
    if (plan.dots) {
      int64_t first = block * plan.block_rows;
      pack_dots<Fmt>(product, job, first, least(plan.block_rows, job.rows - first), static_cast<float*>(packed));
    } else {
      pack_tiles<Fmt>(product, job, plan, block, packed);
    }
  });
}

void multiply(
    const Product& product, const Job& job, const Plan& plan, const void* packed, int64_t panel, int64_t first,
    int64_t last) {
  if (product.format == Format::blocks) {
    return plan.dots ? multiply_block_dots(product, job, plan, packed, panel)
                     : multiply_block_tiles(product, job, plan, packed, panel, first, last);
  }
  with_format(product.format, [&](auto format) {
    using Fmt = decltype(format);
    if (plan.dots) {
      return multiply_dots<Fmt>(product, job, plan, packed, panel);
    }
    Math math = math_of<Fmt>(product);
    if constexpr (has_bf16_dot && Fmt::scaling == Scaling::affine) {
      if (math == Math::groups) {
        return multiply_tiles<Fmt, Math::groups>(product, job, plan, packed, panel, first, last);
      }
    } else if constexpr (has_bf16_dot && Fmt::values > 1) {
      if (math == Math::pairs) {
        return multiply_tiles<Fmt, Math::pairs>(product, job, plan, packed, panel, first, last);
      }
    }
    multiply_tiles<Fmt, Math::floats>(product, job, plan, packed, panel, first, last);
  });
}

} // namespace

const ProductKernels product_kernels = {plan, pack, multiply};

} // namespace mlxlm::cpu::MLXLM_ISA
