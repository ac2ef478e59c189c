#include "cuda/low_rank.h"


#include "cuda/kernel.h"
#include "cuda/low_rank_sources.h"
#include "cuda/product_sources.h"
#include "mlx/transforms.h"

namespace mlxlm::cuda {

namespace {

int parts_of(int whole, int part) {
  return (whole + part - 1) / part;
}

array rows_of(const array& x, mx::StreamOrDevice s) {
  return mx::reshape(x, {-1, x.shape(-1)}, s);
}

// x (M, K) times thin (K, R), or its transpose: (M, R), float32.
array down(const array& x, const array& thin, bool transposed, float scale, mx::StreamOrDevice s) {
  static Kernel kernel("mlxlm_low_rank_down", {"x", "thin"}, {"narrow"}, low_rank_down_source, product_header);
  constexpr int warps = 8;
  int rank = thin.shape(transposed ? 0 : 1);
  int rows = x.shape(0);
  return kernel(
      {x, thin}, {{rows, rank}}, {mx::float32},
      {{parts_of(rows, 16), 1, 1},
       32 * warps,
       {{"RANK", rank}, {"TRANSPOSED", transposed}, {"WARPS", warps}, {"SCALE", bits_of(scale)}}},
      s)[0];
}

// base + scale · narrow (M, R) times thin (R, N) or its transpose: (M, N).
array up(
    const std::optional<array>& base, const array& narrow, const array& thin, bool transposed, float scale,
    mx::Dtype dtype, mx::StreamOrDevice s) {
  static Kernel alone(
      "mlxlm_low_rank_up", {"narrow", "thin"}, {"wide"}, low_rank_up_source,
      std::string(product_header) + "\n#define BASE 0\n");
  static Kernel added(
      "mlxlm_low_rank_add", {"base", "narrow", "thin"}, {"wide"}, low_rank_up_source,
      std::string(product_header) + "\n#define BASE 1\n");
  constexpr int threads = 128;
  constexpr int rows = 32;
  int rank = narrow.shape(1);
  int dims = thin.shape(transposed ? 0 : 1);
  int columns = rank <= 8 ? 8 : rank <= 16 ? 4 : 2;
  std::vector<array> inputs = {narrow, thin};
  if (base) {
    inputs.insert(inputs.begin(), *base);
  }
  return (base ? added : alone)(
      inputs, {{narrow.shape(0), dims}}, {dtype},
      {{parts_of(dims, threads * columns), parts_of(narrow.shape(0), rows), 1},
       threads,
       {{"RANK", rank},
        {"TRANSPOSED", transposed},
        {"COLUMNS", columns},
        {"ROWS", rows},
        {"SCALE", bits_of(scale)}}},
      s)[0];
}

// xᵀ narrow of x (M, K) and narrow (M, R): (K, R), or its transpose.
array outer(const array& x, const array& narrow, bool transposed, float scale, mx::StreamOrDevice s) {
  static Kernel kernel("mlxlm_low_rank_outer", {"x", "narrow"}, {"parts"}, low_rank_outer_source, product_header);
  constexpr int threads = 128;
  constexpr int rows = 128;
  int rank = narrow.shape(1);
  int dims = x.shape(1);
  int splits = parts_of(x.shape(0), rows);
  mx::Shape shape = transposed ? mx::Shape{splits, rank, dims} : mx::Shape{splits, dims, rank};
  auto parts = kernel(
      {x, narrow}, {shape}, {mx::float32},
      {{parts_of(dims, 2 * threads), splits, 1},
       threads,
       {{"RANK", rank}, {"TRANSPOSED", transposed}, {"ROWS", rows}, {"SCALE", bits_of(scale)}}},
      s)[0];
  return mx::sum(parts, 0, false, s);
}

} // namespace

bool takes_low_rank(const array& base, const array& x, const array& a, const array& b, mx::StreamOrDevice s) {
  // Fewer rows leave most of the GPU idle, and are no training batch.
  constexpr size_t fewest_rows = 64;
  if (x.ndim() < 2 || x.ndim() != base.ndim() || a.ndim() != 2 || b.ndim() != 2 || a.shape(1) != b.shape(0)) {
    return false;
  }
  auto leading = x.shape();
  leading.back() = base.shape(-1);
  int rank = a.shape(1);
  int inputs = x.shape(-1);
  int outputs = base.shape(-1);
  return leading == base.shape() && a.shape(0) == inputs && b.shape(1) == outputs && is_half(x.dtype()) &&
      base.dtype() == x.dtype() && a.dtype() == mx::float32 && b.dtype() == mx::float32 && rank % 8 == 0 &&
      rank > 0 && rank <= 64 && inputs > 0 && inputs % 32 == 0 && outputs > 0 && outputs % 32 == 0 &&
      x.size() / inputs >= fewest_rows && on_gpu(s);
}

array low_rank(
    const array& base, const array& x, const array& a, const array& b, float scale, mx::StreamOrDevice s) {
  auto forward = [=](const std::vector<array>& in) -> std::vector<array> {
    auto narrow = down(rows_of(in[1], s), in[2], false, 1.0f, s);
    auto wide = up(rows_of(in[0], s), narrow, in[3], false, scale, in[0].dtype(), s);
    return {mx::reshape(wide, in[0].shape(), s), std::move(narrow)};
  };
  auto backward = [=](const std::vector<array>& in, const std::vector<array>& cotangents,
                      const std::vector<array>& outputs) -> std::vector<array> {
    auto slope = rows_of(cotangents[0], s);
    auto narrow = down(slope, in[3], true, scale, s);
    auto wide = up(std::nullopt, narrow, in[2], true, 1.0f, in[1].dtype(), s);
    return {
        cotangents[0], mx::reshape(wide, in[1].shape(), s), outer(rows_of(in[1], s), narrow, false, 1.0f, s),
        outer(slope, outputs[1], true, scale, s)};
  };
  return mx::custom_function(forward, backward)({base, x, a, b})[0];
}

} // namespace mlxlm::cuda
