#include "cuda/dense.h"

#include <algorithm>
#include <map>

#include "cuda/dense_parts.h"
#include "cuda/dense_sources.h"
#include "cuda/kernel.h"
#include "cuda/product_sources.h"
#include "cuda/products.h"
#include "cuda/stream.h"
#include "cuda/token_parts.h"

namespace mlxlm::cuda {

namespace {

// From here on cuBLAS is faster by more than the host's work for it.
constexpr int most_rows = 32;

struct Shape {
  int rows; // of x in one tile
  int warps;
  int parts; // of the inputs
};

constexpr int large_warps = 8;
constexpr int small_warps = 4;

// Measured on an H200: three small blocks for each multiprocessor, and where the outputs fill it, larger ones.
Shape shape_for(int rows, int inputs, int outputs, int multiprocessors) {
  int tile = rows <= 8 ? 8 : rows <= 16 ? 16 : 32;
  int large = (outputs + 127) / 128;
  if (large * 10 >= multiprocessors * 8) {
    return {tile, large_warps, large * 10 >= multiprocessors * 15 ? 1 : 2};
  }
  int small = (outputs + 63) / 64;
  int most = std::clamp(inputs / 256, 1, 16);
  return {tile, small_warps, std::clamp((3 * multiprocessors + small / 2) / small, 1, most)};
}

// How many blocks of so many warps a multiprocessor has room for, by their registers.
int blocks_of(int warps) {
  return warps <= small_warps ? 3 : warps <= large_warps ? 2 : 1;
}

Kernel& kernel_of(int warps) {
  auto made = [](const char* name, int warps) {
    auto header = std::string(product_header) + dense_header + launch_bounds(32 * warps, blocks_of(warps));
    return Kernel(name, {"x", "w"}, {"product"}, dense_rows_source, header);
  };
  static Kernel large = made("mlxlm_dense_rows", large_warps);
  static Kernel small = made("mlxlm_dense_rows_small", small_warps);
  return warps == large_warps ? large : small;
}

Kernel& gated_kernel_of(int warps) {
  static std::map<int, Kernel> kernels;
  auto known = kernels.find(warps);
  if (known == kernels.end()) {
    auto header = std::string(product_header) + dense_header + stream_header() + token_header +
        launch_bounds(32 * warps, blocks_of(warps));
    auto name = "mlxlm_gated_rows_" + std::to_string(warps);
    Kernel made(name, {"x", "w"}, {"out"}, gated_rows_source, header);
    known = kernels.emplace(warps, std::move(made)).first;
  }
  return known->second;
}

Shape shape_for(int rows, const array& w, mx::StreamOrDevice s) {
  return shape_for(rows, w.shape(1), w.shape(0), streaming_gpu(s)->multiprocessors);
}

int rows_of(const array& x) {
  return static_cast<int>(x.size() / x.shape(-1));
}

} // namespace

array transposed(const array& w) {
  array view({w.shape(1), w.shape(0)}, w.dtype(), nullptr, {});
  array::Flags flags = {
      .contiguous = w.flags().contiguous,
      .row_contiguous = w.flags().col_contiguous,
      .col_contiguous = w.flags().row_contiguous};
  view.copy_shared_buffer(w, {w.strides(1), w.strides(0)}, flags, w.data_size());
  view.set_status(array::Status::available);
  return view;
}

namespace {

// Whether the matrix, whose axis `inputs` has the inputs, lies as a layer's weight does.
bool lies_as_weight(int rows, mx::Dtype dtype, const array& w, int inputs, mx::StreamOrDevice s) {
  bool fits = rows > 1 && rows <= most_rows && is_half(dtype) && w.ndim() == 2 && w.dtype() == dtype &&
      w.shape(inputs) >= 128 && w.shape(inputs) % 8 == 0 && w.shape(1 - inputs) > 0 && !traced(w);
  bool lies = fits && w.is_available() && w.strides(inputs) == 1 && w.strides(1 - inputs) == w.shape(inputs) &&
      w.offset() % 16 == 0;
  return lies && streaming_gpu(s);
}

} // namespace

bool takes_dense_rows(const array& x, const array& w, mx::StreamOrDevice s) {
  bool fits = x.ndim() > 0 && w.ndim() == 2 && x.shape(-1) == w.shape(0) && x.size() > 0 && !traced(x);
  return fits && lies_as_weight(rows_of(x), x.dtype(), w, 0, s);
}

bool takes_dense_weight(int rows, mx::Dtype dtype, const array& w, mx::StreamOrDevice s) {
  return lies_as_weight(rows, dtype, w, 1, s);
}

int dense_parts(int rows, const array& w, mx::StreamOrDevice s) {
  return shape_for(rows, w, s).parts;
}

array dense_row_parts(const array& x, const array& w, mx::StreamOrDevice s) {
  int rows = rows_of(x);
  int inputs = w.shape(1);
  int outputs = w.shape(0);
  auto shape = shape_for(rows, w, s);
  auto flat = x.ndim() == 2 ? x : mx::reshape(x, {rows, inputs}, s);
  int tile = 16 * shape.warps;
  Launch launch = {
      {(outputs + tile - 1) / tile, shape.parts, 1},
      shape.warps * 32,
      {{"ROWS", shape.rows}, {"WARPS", shape.warps}}};
  bool whole = shape.parts == 1;
  auto result = whole ? mx::Shape{rows, outputs} : mx::Shape{shape.parts, rows, outputs};
  return kernel_of(shape.warps)({flat, w}, {result}, {whole ? x.dtype() : mx::float32}, launch, s)[0];
}

bool takes_gated_rows(int rows, const array& w, mx::StreamOrDevice s) {
  // As many teams in a block leave room for their tiles.
  return w.shape(0) % 16 == 0 && dense_parts(rows, w, s) <= 2;
}

array gated_rows(const array& x, const array& w, bool gelu, mx::StreamOrDevice s) {
  int rows = x.shape(0);
  int outputs = w.shape(0) / 2;
  auto shape = shape_for(rows, w, s);
  int warps = shape.warps * shape.parts;
  int tile = 8 * shape.warps;
  Launch launch = {
      {(outputs + tile - 1) / tile, 1, 1},
      warps * 32,
      {{"ROWS", shape.rows}, {"WARPS", shape.warps}, {"TEAMS", shape.parts}, {"GELU", gelu ? 1 : 0}}};
  return gated_kernel_of(warps)({x, w}, {{rows, outputs}}, launch, s)[0];
}

array dense_rows(const array& x, const array& w, mx::StreamOrDevice s) {
  auto parts = dense_row_parts(x, transposed(w), s);
  auto shape = x.shape();
  shape.back() = w.shape(1);
  if (parts.ndim() == 3) {
    return sum_parts(parts, std::move(shape), x.dtype(), s);
  }
  return x.ndim() == 2 ? parts : mx::reshape(parts, std::move(shape), s);
}

} // namespace mlxlm::cuda
