#include "cuda/experts.h"

#include <map>

#include "cuda/expert_sources.h"
#include "cuda/kernel.h"
#include "cuda/meeting.h"
#include "cuda/stream.h"
#include "cuda/token_parts.h"

namespace mlxlm::cuda {

namespace {

// A stack of `experts` matrices (rows, columns) as the kernels stream it; nothing where they don't. Experts in 16 bits have
// not been seen to work on a GPU.
std::optional<StreamMatrix> stack_of(const cpu::Matrix& given, int experts, int rows, int columns, mx::Dtype dtype) {
  auto matrix = stream_matrix(given, 3, columns, dtype);
  bool fits = matrix && matrix->packed() && !given.layout.biased && given.arrays[0].shape(0) == experts && matrix->rows == rows;
  return fits ? matrix : std::nullopt;
}

constexpr const char* array_names[][3] = {
    {"gate", "gate_scales", "gate_biases"}, {"up", "up_scales", "up_biases"}, {"down", "down_scales", "down_biases"}};

void add(std::vector<const char*>& names, std::vector<array>& arrays, int which, const cpu::Matrix& matrix) {
  for (size_t i = 0; i < matrix.arrays.size(); ++i) {
    names.push_back(array_names[which][i]);
    arrays.push_back(matrix.arrays[i]);
  }
}

std::string header() {
  return stream_header() + token_header + experts_header;
}

} // namespace

std::optional<array> experts_token(
    const array& x, const array& chosen, const array& weights, const Experts& experts, mx::StreamOrDevice s) {
  auto gpu = streaming_gpu(s);
  auto dtype = x.dtype();
  int count = static_cast<int>(chosen.size());
  if (!gpu || x.ndim() == 0 || x.size() != static_cast<size_t>(x.shape(-1)) || !is_half(dtype) ||
      experts.gate.arrays.empty() || experts.gate.arrays[0].ndim() != 3 || count < 1 || count > 64 ||
      weights.size() != chosen.size() || traced(x, chosen, weights) || chosen.dtype() != mx::uint32) {
    return std::nullopt;
  }
  int dims = x.shape(-1);
  int stacked = experts.gate.arrays[0].shape(0);
  int inner = experts.gate.arrays[0].shape(1);
  auto gate = stack_of(experts.gate, stacked, inner, dims, dtype);
  auto up = stack_of(experts.up, stacked, inner, dims, dtype);
  auto down = stack_of(experts.down, stacked, dims, inner, dtype);
  if (!gate || !up || !down || *gate != *up || inner % 8 != 0) {
    return std::nullopt;
  }
  // All the rows that are read decide how they are cut.
  auto up_cut = stream_cut({up->bits, up->group, 2 * inner * count, dims}, *gpu);
  auto down_cut = stream_cut(*down, *gpu);
  if (!up_cut || !down_cut) {
    return std::nullopt;
  }
  int slot_bytes = (std::max(up_cut->slot_bytes, down_cut->slot_bytes) + 127) / 128 * 128;
  int groups = std::max(up->groups(), count * down->groups());
  int fixed = stream_fixed_bytes(groups) + 2 * std::max(dims, count * inner);
  constexpr int beside = 1024; // the list of experts
  int slots = stream_slots(slot_bytes, fixed + beside, *gpu);
  if (slots == 0) {
    return std::nullopt;
  }
  auto stream = mx::to_stream(s);
  std::vector<const char*> names = {"x", "experts", "weights"};
  std::vector<array> inputs = {x, chosen, weights};
  add(names, inputs, 0, experts.gate);
  add(names, inputs, 1, experts.up);
  add(names, inputs, 2, experts.down);
  add_meeting(names, inputs, stream);
  std::vector<int> key = {
      count, dims, inner, (groups + 3) / 4 * 4, slots, slot_bytes, up->bits, up->group, up_cut->tile, up_cut->cuts,
      down->bits, down->group, down_cut->tile, down_cut->cuts, experts.gelu, static_cast<int>(dtype.val()),
      static_cast<int>(weights.dtype().val()), stream.index};
  static const char* constants[] = {
      "COUNT",   "DIMS",     "INNER",   "GROUPS",    "SLOTS",     "SLOT_BYTES", "UP_BITS", "UP_GROUP",
      "UP_TILE", "UP_CUTS", "DOWN_BITS", "DOWN_GROUP", "DOWN_TILE", "DOWN_CUTS", "GELU"};
  static std::map<std::vector<int>, std::shared_ptr<mx::Primitive>> made;
  std::vector<mx::Shape> shapes = {x.shape(), {count * inner}};
  std::vector<mx::Dtype> dtypes = {dtype, dtype};
  std::vector<array> results;
  auto known = made.find(key);
  if (known != made.end()) {
    results = array::make_arrays(std::move(shapes), dtypes, known->second, inputs);
  } else {
    std::vector<std::pair<std::string, mx::fast::TemplateArg>> arguments = {{"T", dtype}, {"W", weights.dtype()}};
    for (size_t i = 0; i < std::size(constants); ++i) {
      arguments.emplace_back(constants[i], key[i]);
    }
    auto kernel = mx::fast::cuda_kernel(
        "mlxlm_experts_token", {names.begin(), names.end()}, {"out", "room"}, experts_token_source, header(), true,
        fixed + slots * slot_bytes);
    results = kernel(
        inputs, shapes, dtypes, {gpu->multiprocessors * stream_threads, 1, 1}, {stream_threads, 1, 1}, arguments,
        std::nullopt, false, stream);
    made.emplace(std::move(key), results[0].primitive_ptr());
  }
  remember_meeting(results[0]);
  return results[0];
}

std::vector<array> route_tokens(const array& logits, int count, bool normalize, mx::StreamOrDevice s) {
  if (logits.ndim() == 0 || logits.size() == 0 || logits.shape(-1) > 1024 || count < 1 || count > 32 ||
      count > logits.shape(-1) || !(is_half(logits.dtype()) || logits.dtype() == mx::float32) || !on_gpu(s) ||
      traced(logits)) {
    return {};
  }
  static Kernel kernel("mlxlm_route", {"logits"}, {"experts", "weights"}, route_source);
  auto shape = logits.shape();
  int experts = shape.back();
  shape.back() = count;
  int rows = static_cast<int>(logits.size() / experts);
  return kernel(
      {logits}, {shape, shape}, {mx::uint32, logits.dtype()},
      {{rows, 1, 1}, 32, {{"EXPERTS", experts}, {"COUNT", count}, {"NORMALIZE", normalize}}}, s);
}

} // namespace mlxlm::cuda
