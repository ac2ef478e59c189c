#include "cuda/stream.h"

#include "cuda/driver.h"
#include "cuda/kernel.h"
#include "cuda/ring_sources.h"
#include "cuda/stream_sources.h"

namespace mlxlm::cuda {

namespace {

// What MLX does not tell of a device, from the driver that it has loaded.
std::optional<int> attribute_of(int device, int attribute) {
  static int (*get)(int*, int);
  static int (*ask)(int*, int, int);
  static bool found = find_in_driver(get, "cuDeviceGet") && find_in_driver(ask, "cuDeviceGetAttribute");
  int handle = 0;
  int value = 0;
  if (!found || get(&handle, device) != 0 || ask(&value, attribute, handle) != 0) {
    return std::nullopt;
  }
  return value;
}

std::optional<StreamingGpu> ask_gpu(int device) {
  constexpr int multiprocessors = 16;
  constexpr int compute_capability_major = 75;
  constexpr int shared_memory_by_choice = 97;
  auto major = attribute_of(device, compute_capability_major);
  auto count = attribute_of(device, multiprocessors);
  auto bytes = attribute_of(device, shared_memory_by_choice);
  if (!major || !count || !bytes || *major < 9) {
    return std::nullopt;
  }
  return StreamingGpu{*count, *bytes};
}

// Of a slot: eight rows times four lanes read it without bank conflicts.
int slot_bytes(const StreamMatrix& matrix, int tile, int cuts) {
  int row = matrix.columns / cuts * matrix.bits / 8;
  int lane = matrix.packed() ? std::min(16, matrix.group * matrix.bits / 32) : 16;
  int stride = row + (4 * lane - row % 128 + 128) % 128;
  return tile * stride;
}

// A cut whose columns are a multiple of `unit`.
std::optional<StreamCut> find_cut(const StreamMatrix& matrix, int unit, const StreamingGpu& gpu) {
  // Four slots at least beside an input of some KB.
  int most = std::min(40'000, (gpu.shared_memory - 32'000) / 4);
  constexpr int wanted = 1536; // bytes of a row in a slot: with fewer, copying is bound by the number of copies
  std::optional<StreamCut> best;
  int best_row = 0;
  bool many_rows = matrix.rows / 16 >= gpu.multiprocessors * 9 / 10;
  for (int tile : {many_rows ? 16 : 8, many_rows ? 8 : 16}) {
    for (int cuts = 1; cuts <= 128 && matrix.rows % tile == 0; ++cuts) {
      int columns = matrix.columns / cuts;
      int row = columns * matrix.bits / 8;
      if (matrix.columns % cuts != 0 || columns % unit != 0 || row % 16 != 0 || slot_bytes(matrix, tile, cuts) > most) {
        continue;
      }
      if (!best || std::min(row, wanted) > best_row) {
        best = {tile, cuts, slot_bytes(matrix, tile, cuts)};
        best_row = std::min(row, wanted);
      }
      break;
    }
  }
  return best;
}

// The warps of a block have as many columns each, where they can.
std::optional<StreamCut> find_cut(const StreamMatrix& matrix, const StreamingGpu& gpu) {
  int piece = matrix.packed() ? matrix.group : 32;
  auto even = find_cut(matrix, stream_warps * piece, gpu);
  return even ? even : find_cut(matrix, piece, gpu);
}

StreamMatrix matrix_of(const array& w, int group, int bits) {
  return {bits, group, w.shape(0), w.shape(1) * 32 / bits};
}

} // namespace

std::optional<StreamingGpu> streaming_gpu(mx::StreamOrDevice s) {
  if (!on_gpu(s)) {
    return std::nullopt;
  }
  static std::map<int, std::optional<StreamingGpu>> known;
  int device = mx::to_stream(s).device.index;
  auto at = known.find(device);
  if (at == known.end()) {
    at = known.emplace(device, ask_gpu(device)).first;
  }
  return at->second;
}

std::optional<StreamCut> stream_cut(const StreamMatrix& matrix, const StreamingGpu& gpu) {
  static std::map<std::tuple<StreamMatrix, int, int>, std::optional<StreamCut>> known;
  auto key = std::tuple(matrix, gpu.multiprocessors, gpu.shared_memory);
  auto at = known.find(key);
  if (at == known.end()) {
    at = known.emplace(key, find_cut(matrix, gpu)).first;
  }
  return at->second;
}

int stream_slots(int slot_bytes, int fixed, const StreamingGpu& gpu) {
  int slots = std::min(8, (gpu.shared_memory - fixed) / slot_bytes);
  return slots < 3 ? 0 : slots;
}

int stream_fixed_bytes(int groups) {
  constexpr int barriers = 128;
  constexpr int sums_of_warps = 2 * stream_warps * 16 * sizeof(float);
  return barriers + (groups + 3) / 4 * 4 * static_cast<int>(sizeof(float)) + sums_of_warps;
}

std::string stream_header() {
  return std::string(ring_header) + stream_product_header;
}

bool lies_ready(const array& a) {
  return a.is_available() && a.flags().row_contiguous && a.offset() % 16 == 0;
}

std::optional<StreamMatrix> stream_matrix(const cpu::Matrix& given, int axes, int columns, mx::Dtype dtype) {
  auto& [arrays, layout] = given;
  auto& packing = layout.packing;
  if (layout.block_type != 0 || arrays.size() != layout.arrays() || arrays[0].ndim() != static_cast<size_t>(axes)) {
    return std::nullopt;
  }
  bool reads = !packing ||
      (packing->is_affine() && (packing->bits == 4 || packing->bits == 8) &&
       (packing->group == 32 || packing->group == 64 || packing->group == 128));
  if (!reads) {
    return std::nullopt;
  }
  auto& w = arrays[0];
  StreamMatrix matrix = {packing ? packing->bits : 16, packing ? packing->group : 0, w.shape(-2), columns};
  int64_t width_bits = static_cast<int64_t>(w.shape(-1)) * (packing ? 32 : 16);
  if (w.dtype() != (packing ? mx::uint32 : dtype) || width_bits != static_cast<int64_t>(columns) * matrix.bits) {
    return std::nullopt;
  }
  auto scales = w.shape();
  scales.back() = matrix.groups();
  for (size_t i = 1; packing && i < 3; ++i) {
    if (arrays[i].shape() != scales || arrays[i].dtype() != dtype) {
      return std::nullopt;
    }
  }
  return std::all_of(arrays.begin(), arrays.end(), lies_ready) ? std::optional(matrix) : std::nullopt;
}

bool takes_stream_row(
    const array& x, const array& w, const array& scales, const array& biases, int group_size, int bits,
    mx::StreamOrDevice s) {
  auto gpu = streaming_gpu(s);
  // Few multiprocessors would have work of a small matrix.
  if (!gpu || w.shape(0) < gpu->multiprocessors * 8 || !lies_ready(w) || !lies_ready(scales) || !lies_ready(biases)) {
    return false;
  }
  auto matrix = matrix_of(w, group_size, bits);
  auto cut = stream_cut(matrix, *gpu);
  return cut && x.size() == static_cast<size_t>(matrix.columns) &&
      stream_slots(cut->slot_bytes, stream_fixed_bytes(matrix.groups()) + 2 * matrix.columns, *gpu) > 0;
}

array stream_row(
    const array& x, const array& w, const array& scales, const array& biases, int group_size, int bits,
    mx::StreamOrDevice s) {
  auto gpu = *streaming_gpu(s);
  auto matrix = matrix_of(w, group_size, bits);
  auto cut = *stream_cut(matrix, gpu);
  int fixed = stream_fixed_bytes(matrix.groups()) + 2 * matrix.columns;
  int slots = stream_slots(cut.slot_bytes, fixed, gpu);
  static std::map<int, Kernel> kernels;
  int bytes = fixed + slots * cut.slot_bytes;
  auto at = kernels.find(bytes);
  if (at == kernels.end()) {
    std::string header = "#define SCALES scales\n#define BIASES biases\n" + stream_header();
    Kernel kernel(
        "mlxlm_stream_row", {"x", "w", "scales", "biases"}, {"product"}, stream_row_source, header, bytes);
    at = kernels.emplace(bytes, std::move(kernel)).first;
  }
  auto shape = x.shape();
  shape.back() = matrix.rows;
  return at->second(
      {x, w, scales, biases}, {shape},
      {{gpu.multiprocessors, 1, 1},
       stream_threads,
       {{"BITS", bits},
        {"GROUP", group_size},
        {"INPUTS", matrix.columns},
        {"TILE", cut.tile},
        {"CUTS", cut.cuts},
        {"SLOTS", slots}}},
      s)[0];
}

} // namespace mlxlm::cuda
