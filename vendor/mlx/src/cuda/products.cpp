#include "cuda/products.h"

#include <algorithm>

#include "cuda/kernel.h"
#include "cuda/product_sources.h"

namespace mlxlm::cuda {

namespace {

// Up to here a kernel that unpacks weights for itself is faster than unpacking them for a product of MLX's.
constexpr int most_rows = 128;

enum class Gathered { no, sorted, pairs };

bool is_affine(const Packed& weight) {
  return weight.mode == "affine";
}

// The kernel's number for a format; nothing where it has none.
std::optional<int> mode_of(const Packed& weight) {
  bool affine_group = weight.group == 32 || weight.group == 64 || weight.group == 128;
  bool affine_bits = weight.bits >= 2 && weight.bits <= 8 && weight.bits != 7;
  if (is_affine(weight)) {
    return affine_group && affine_bits && weight.biases ? std::optional(0) : std::nullopt;
  }
  if (weight.mode == "mxfp4" && weight.bits == 4 && weight.group == 32) {
    return 1;
  }
  if (weight.mode == "mxfp8" && weight.bits == 8 && weight.group == 32) {
    return 2;
  }
  if (weight.mode == "nvfp4" && weight.bits == 4 && weight.group == 16) {
    return 3;
  }
  return std::nullopt;
}

// Shapes and dtypes fit together: w (…, N, K) with its scales.
bool fits(const array& x, const Packed& weight, int axes) {
  const auto& w = weight.w;
  const auto& scales = weight.scales;
  if (!is_half(x.dtype()) || !mode_of(weight) || w.dtype() != mx::uint32) {
    return false;
  }
  if (w.ndim() != axes || scales.ndim() != axes || scales.dtype() != (is_affine(weight) ? x.dtype() : mx::uint8)) {
    return false;
  }
  if (is_affine(weight) &&
      (weight.biases->shape() != scales.shape() || weight.biases->dtype() != scales.dtype())) {
    return false;
  }
  int64_t inputs = static_cast<int64_t>(w.shape(-1)) * 32 / weight.bits;
  return inputs % 32 == 0 && scales.shape(-2) == w.shape(-2) && scales.shape(-1) * int64_t(weight.group) == inputs &&
      w.size() > 0 && x.size() > 0;
}

// Inputs of kernels that take packed weights, and what their text calls the biases.
std::vector<std::string> weight_names(bool affine) {
  return affine ? std::vector<std::string>{"w", "scales", "biases"} : std::vector<std::string>{"w", "scales"};
}
std::vector<array> weight_arrays(const Packed& weight) {
  return weight.biases ? std::vector<array>{weight.w, weight.scales, *weight.biases}
                       : std::vector<array>{weight.w, weight.scales};
}
std::string biases_name(bool affine) {
  return std::string("#define BIASES ") + (affine ? "biases" : "scales") + "\n";
}

// Weights (N, K).
array dense(const Packed& weight, mx::Dtype dtype, mx::StreamOrDevice s) {
  if (weight.bits % 2 != 0 || weight.bits == 6) {
    return mx::dequantize(
        weight.w, weight.scales, weight.biases, weight.group, weight.bits, weight.mode, std::nullopt, dtype, s);
  }
  static std::optional<Kernel> kernels[2];
  bool affine = is_affine(weight);
  auto& kernel = kernels[affine];
  if (!kernel) {
    kernel.emplace(
        affine ? "mlxlm_unpack_affine" : "mlxlm_unpack", weight_names(affine), std::vector<std::string>{"weights"},
        unpack_source, biases_name(affine) + product_header);
  }
  constexpr int threads = 256;
  constexpr int turns = 4;
  constexpr int each = 8 * threads * turns;
  int64_t values = static_cast<int64_t>(weight.w.size()) * 32 / weight.bits;
  mx::Shape shape = {weight.w.shape(0), weight.w.shape(1) * 32 / weight.bits};
  Launch launch = {
      {static_cast<int>((values + each - 1) / each), 1, 1},
      threads,
      {{"TURNS", turns}, {"BITS", weight.bits}, {"GROUP", weight.group}, {"MODE", *mode_of(weight)}}};
  return (*kernel)(weight_arrays(weight), {shape}, {dtype}, launch, s)[0];
}

array unpacked_product(const array& x, const Packed& weight, bool transpose, mx::StreamOrDevice s) {
  auto w = dense(weight, x.dtype(), s);
  return mx::matmul(x, transpose ? mx::swapaxes(w, -1, -2, s) : w, s);
}

// The same with a gradient for x that unpacks the weights again instead of keeping them.
array differentiable_product(const array& x, const Packed& weight, bool transpose, mx::StreamOrDevice s) {
  auto forward = [=](const std::vector<array>& inputs) {
    return std::vector<array>{unpacked_product(inputs[0], weight, transpose, s)};
  };
  auto backward = [=](const std::vector<array>&, const std::vector<array>& cotangents, const std::vector<array>&) {
    // Behind the slope, or a compiled function would see the same operation twice and keep the unpacked weights.
    Packed again = weight;
    again.w = mx::depends({weight.w}, {cotangents[0]})[0];
    return std::vector<array>{unpacked_product(cotangents[0], again, !transpose, s)};
  };
  return mx::custom_vjp(forward, backward)({x})[0];
}

struct Shape {
  int rows; // of x in one tile
  int mtiles;
  int warps;
  int outputs; // of one block
};

// Measured on an H200: with few rows more blocks, with many more work for each value of x that a block has read.
Shape shape_for(int rows) {
  if (rows <= 8) {
    return {8, 1, 4, 64};
  }
  if (rows <= 16) {
    return {16, 2, 4, 128};
  }
  if (rows <= 32) {
    return {32, 1, 8, 128};
  }
  return {64, 2, 8, 256};
}

// Into how many parts the inputs are cut, so that every multiprocessor has work.
int parts_for(const Shape& shape, int inputs, int blocks) {
  int wanted = shape.warps == 4 ? 512 : 256;
  int chunks = (inputs + 127) / 128;
  return std::clamp((wanted + blocks / 2) / blocks, 1, std::min(16, std::max(1, chunks / 2)));
}

Kernel& tiles_kernel(bool affine, Gathered gathered) {
  static std::optional<Kernel> kernels[2][3];
  auto& kernel = kernels[affine][static_cast<int>(gathered)];
  if (!kernel) {
    auto inputs = weight_names(affine);
    inputs.insert(inputs.begin(), "x");
    if (gathered != Gathered::no) {
      inputs.push_back("tiles");
    }
    static const char* kinds[] = {"rows", "sorted", "pairs"};
    std::string name = std::string("mlxlm_quantized_") + kinds[static_cast<int>(gathered)] + (affine ? "_affine" : "");
    std::string defined = "#define SORTED 1\n#define PAIRS 2\n#define GATHERED " +
        std::to_string(static_cast<int>(gathered)) + "\n" + biases_name(affine);
    kernel.emplace(name, inputs, std::vector<std::string>{"product"}, quantized_tiles_source, defined + product_header);
  }
  return *kernel;
}

// x (rows, K) → (rows of the result, N). `tiles` are for gathered weights.
array tiled_product(
    const array& x, const Packed& weight, Gathered gathered, const std::optional<array>& tiles, const Shape& shape,
    int depth, int result_rows, mx::StreamOrDevice s) {
  int inputs = x.shape(-1);
  int outputs = weight.w.shape(-2);
  int blocks = (outputs + shape.outputs - 1) / shape.outputs;
  int parts = parts_for(shape, inputs, blocks * depth);
  auto arrays = weight_arrays(weight);
  arrays.insert(arrays.begin(), x);
  if (tiles) {
    arrays.push_back(*tiles);
  }
  Launch launch = {
      {blocks, parts, depth},
      shape.warps * 32,
      {{"ROWS", shape.rows},
       {"MTILES", shape.mtiles},
       {"WARPS", shape.warps},
       {"BITS", weight.bits},
       {"MODE", *mode_of(weight)}}};
  auto& kernel = tiles_kernel(is_affine(weight), gathered);
  auto dtype = parts == 1 ? x.dtype() : mx::float32;
  auto product = kernel(arrays, {{parts, result_rows, outputs}}, {dtype}, launch, s)[0];
  return parts == 1 ? mx::reshape(product, {result_rows, outputs}, s) : sum_parts(product, x.dtype(), s);
}

Kernel& sum_kernel() {
  static Kernel kernel("mlxlm_sum_parts", {"parts"}, {"product"}, sum_parts_source);
  return kernel;
}

array expert_tiles(const array& indices, int experts, int rows, mx::StreamOrDevice s) {
  static Kernel kernel("mlxlm_expert_tiles", {"indices"}, {"tiles"}, expert_tiles_source);
  int count = static_cast<int>(indices.size()) / rows + experts;
  return kernel(
      {indices}, {{count, 3}}, {mx::int32}, {{1, 1, 1}, 1024, {{"EXPERTS", experts}, {"ROWS", rows}}}, s)[0];
}

// In a compiled function inputs are traced as well, but come from no operation. What gradients are taken by is a copy.
bool may_have_gradient(const array& a) {
  return traced(a) && a.has_primitive();
}

} // namespace

array sum_parts(const array& parts, mx::Shape shape, mx::Dtype dtype, mx::StreamOrDevice s) {
  constexpr int threads = 128;
  int64_t numbers = static_cast<int64_t>(parts.shape(1)) * parts.shape(2);
  int blocks = static_cast<int>((numbers + 4 * threads - 1) / (4 * threads));
  return sum_kernel()({parts}, {std::move(shape)}, {dtype}, {{blocks, 1, 1}, threads, {{"PARTS", parts.shape(0)}}}, s)[0];
}

array sum_parts(const array& parts, mx::Dtype dtype, mx::StreamOrDevice s) {
  return sum_parts(parts, {parts.shape(1), parts.shape(2)}, dtype, s);
}

std::optional<array> parts_of(const array& sum) {
  return sum_kernel().will_make(sum) ? std::optional(sum.inputs()[0]) : std::nullopt;
}

bool takes_quantized_rows(const array& x, const Packed& weight, bool transpose) {
  if (!fits(x, weight, 2) || x.ndim() == 0 || may_have_gradient(weight.w) || may_have_gradient(weight.scales)) {
    return false;
  }
  if (weight.biases && may_have_gradient(*weight.biases)) {
    return false;
  }
  int inner = transpose ? weight.w.shape(-1) * 32 / weight.bits : weight.w.shape(-2);
  return x.shape(-1) == inner;
}

array quantized_rows(const array& x, const Packed& weight, bool transpose, mx::StreamOrDevice s) {
  if (traced(x)) {
    return differentiable_product(x, weight, transpose, s);
  }
  int rows = static_cast<int>(x.size() / x.shape(-1));
  if (!transpose || rows > most_rows) {
    return unpacked_product(x, weight, transpose, s);
  }
  auto shape = shape_for(rows);
  auto flat = mx::reshape(x, {rows, x.shape(-1)}, s);
  int depth = (rows + shape.rows - 1) / shape.rows;
  auto product = tiled_product(flat, weight, Gathered::no, std::nullopt, shape, depth, rows, s);
  auto result = x.shape();
  result.back() = weight.w.shape(-2);
  return mx::reshape(product, std::move(result), s);
}

bool takes_expert_rows(const array& x, const Packed& weight, const array& indices, bool sorted) {
  if (!fits(x, weight, 3) || x.ndim() < 2 || x.shape(-2) != 1 || indices.size() == 0 ||
      traced(x, weight.w, weight.scales, indices)) {
    return false;
  }
  if (weight.w.shape(0) > 1024 || x.shape(-1) != weight.w.shape(-1) * 32 / weight.bits) {
    return false;
  }
  // The batch axes of x are those of the indices, or the last of them is 1 for uses that share a row.
  mx::Shape batch(x.shape().begin(), x.shape().end() - 2);
  auto uses = indices.shape();
  if (batch == uses) {
    return true;
  }
  if (sorted || batch.size() != uses.size() || batch.empty() || batch.back() != 1) {
    return false;
  }
  return std::equal(batch.begin(), batch.end() - 1, uses.begin());
}

array expert_rows(const array& x, const Packed& weight, const array& indices, bool sorted, mx::StreamOrDevice s) {
  int uses = static_cast<int>(indices.size());
  int rows = static_cast<int>(x.size() / x.shape(-1));
  int experts = weight.w.shape(0);
  auto flat = mx::reshape(x, {rows, x.shape(-1)}, s);
  auto expert_of = mx::astype(mx::reshape(indices, {uses}, s), mx::uint32, s);
  auto result = indices.shape();
  result.push_back(1);
  result.push_back(weight.w.shape(-2));
  if (!sorted) {
    auto product = tiled_product(
        flat, weight, Gathered::pairs, expert_of, shape_for(1), uses, uses, s);
    return mx::reshape(product, std::move(result), s);
  }
  auto shape = shape_for(std::max(1, uses / experts));
  int depth = uses / shape.rows + experts;
  auto tiles = expert_tiles(expert_of, experts, shape.rows, s);
  auto product = tiled_product(flat, weight, Gathered::sorted, tiles, shape, depth, uses, s);
  return mx::reshape(product, std::move(result), s);
}

} // namespace mlxlm::cuda
