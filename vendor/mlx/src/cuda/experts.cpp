#include "cuda/experts.h"

#include <algorithm>
#include <cctype>

#include "cuda/expert_sources.h"
#include "cuda/kernel.h"
#include "cuda/meeting.h"
#include "cuda/stream.h"
#include "cuda/token_parts.h"

namespace mlxlm::cuda {

namespace {

// A stack of `experts` matrices (rows, columns) as the kernels stream it; nothing where they don't.
std::optional<StreamMatrix> stack_of(const cpu::Matrix& given, int experts, int rows, int columns, mx::Dtype dtype) {
  auto matrix = stream_matrix(given, 3, columns, dtype);
  bool fits = matrix && !given.layout.biased && given.arrays[0].shape(0) == experts && matrix->rows == rows;
  return fits ? matrix : std::nullopt;
}

constexpr const char* array_names[][3] = {
    {"gate", "gate_scales", "gate_biases"}, {"up", "up_scales", "up_biases"}, {"down", "down_scales", "down_biases"}};

void add(NamedInputs& inputs, int which, const cpu::Matrix& matrix) {
  for (size_t i = 0; i < matrix.arrays.size(); ++i) {
    inputs.add(array_names[which][i], matrix.arrays[i]);
  }
}

std::string header(bool up_is_packed, bool down_is_packed) {
  std::string text;
  for (int which = 0; which < 3; ++which) {
    bool is_packed = which == 2 ? down_is_packed : up_is_packed;
    for (int part : {1, 2}) {
      std::string name = array_names[which][part];
      std::string defined = name;
      std::transform(defined.begin(), defined.end(), defined.begin(), [](unsigned char c) { return std::toupper(c); });
      text += "#define " + defined + " " + (is_packed ? name : "nullptr") + "\n";
    }
  }
  return text + stream_header() + token_header + experts_header;
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
  NamedInputs inputs;
  inputs.add("x", x);
  inputs.add("experts", chosen);
  inputs.add("weights", weights);
  add(inputs, 0, experts.gate);
  add(inputs, 1, experts.up);
  add(inputs, 2, experts.down);
  static constexpr const char* constants[] = {
      "COUNT",   "DIMS",    "INNER",     "GROUPS",     "SLOTS",     "SLOT_BYTES", "UP_BITS", "UP_GROUP",
      "UP_TILE", "UP_CUTS", "DOWN_BITS", "DOWN_GROUP", "DOWN_TILE", "DOWN_CUTS",  "GELU"};
  std::vector<int> key = {
      count, dims, inner, (groups + 3) / 4 * 4, slots, slot_bytes, up->bits, up->group, up_cut->tile, up_cut->cuts,
      down->bits, down->group, down_cut->tile, down_cut->cuts, experts.gelu, static_cast<int>(dtype.val()),
      static_cast<int>(weights.dtype().val())};
  auto make = [&] {
    MeetingKernel kernel = {
        .name = "mlxlm_experts_token",
        .header = header(up->packed(), down->packed()),
        .outputs = {"out", "room"},
        .arguments = {{"T", dtype}, {"W", weights.dtype()}},
        .shared_memory = fixed + slots * slot_bytes,
        .blocks = gpu->multiprocessors,
        .threads = stream_threads,
        .reads = Reads::copies};
    for (size_t i = 0; i < std::size(constants); ++i) {
      kernel.arguments.emplace_back(constants[i], key[i]);
    }
    return kernel;
  };
  return launch_meeting(
      experts_token_source, key, std::move(inputs), {x.shape(), {count * inner}}, {dtype, dtype}, mx::to_stream(s), make)[0];
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
