#include "cuda/rows.h"

#include <algorithm>
#include <cmath>

#include "cuda/attention_parts.h"
#include "cuda/heads.h"
#include "cuda/kernel.h"
#include "cuda/rows_sources.h"
#include "cuda/stream.h"
#include "cuda/token_parts.h"

namespace mlxlm::cuda {

namespace {

constexpr int threads = 32 * stream_warps;

// What the kernel's text calls sizes.
array sizes_of(const SequenceRows& sequences, int rows, mx::StreamOrDevice s) {
  auto& [used, starts, positions] = sequences;
  std::vector<int> sizes = {used, rows};
  sizes.insert(sizes.end(), starts.begin(), starts.end());
  sizes.insert(sizes.end(), positions.begin(), positions.end());
  return sizes_of_step(sizes, starts.size() > 1, s);
}

// Into how many parts the keys are cut, so that every multiprocessor has work and a part is worth a block. Measured on an H200: more
// blocks than multiprocessors do not pay.
int parts_for(int used, int blocks, int multiprocessors) {
  constexpr int least = 256; // keys
  return std::clamp((used + least) / least, 1, std::max(1, multiprocessors / blocks));
}

std::string header(bool normed, bool by_freqs, bool in_parts) {
  std::string parts = std::string("#define PARTS ") + (in_parts ? "1" : "0") + "\n";
  return parts + head_defines(normed, by_freqs) + stream_header() + token_header + attention_header;
}

Kernel& kernel_of(bool normed, bool by_freqs, bool in_parts) {
  static std::optional<Kernel> kernels[8];
  int number = normed << 2 | by_freqs << 1 | in_parts;
  auto& kernel = kernels[number];
  if (!kernel) {
    std::vector<std::string> inputs = {"keys", "values", "joint", "sizes"};
    if (normed) {
      inputs.insert(inputs.end(), {"query_norm", "key_norm"});
    }
    if (by_freqs) {
      inputs.push_back("freqs");
    }
    kernel.emplace(
        "mlxlm_attend_rows_" + std::to_string(number), inputs, std::vector<std::string>{"out"}, attend_rows_source,
        header(normed, by_freqs, in_parts), 0, Reads::in_place);
  }
  return *kernel;
}

} // namespace

bool takes_attend_rows(const mx::Shape& joint, mx::Dtype dtype, const AttendedRows& rows, mx::StreamOrDevice s) {
  auto& heads = rows.heads;
  auto& [used, starts, positions] = rows.sequences;
  int width = (heads.heads + 2 * heads.kv_heads) * heads.dims;
  if (joint.size() != 3 || joint[0] < 1 || joint[1] != 1 || joint[2] != width || !is_half(dtype) ||
      starts.size() != static_cast<size_t>(joint[0]) || positions.size() != starts.size()) {
    return false;
  }
  auto holds = [&](const array& cache) {
    return cache.ndim() == 4 && cache.shape(0) == joint[0] && cache.shape(1) == heads.kv_heads &&
        cache.shape(2) == rows.keys.shape(2) && cache.shape(3) == heads.dims && cache.dtype() == dtype && !traced(cache);
  };
  if (!holds(rows.keys) || !holds(rows.values)) {
    return false;
  }
  // A token's own row is none of those that it attends to.
  int64_t all = rows.keys.shape(2);
  bool lie = used < 2 * all && std::all_of(starts.begin(), starts.end(), [&](int start) {
    return start >= 0 && start <= used && used - start < all;
  });
  return lie && heads_fit(heads) &&
      weights_fit(heads, rows.query_weight, rows.key_weight, rows.freqs, dtype) && streaming_gpu(s);
}

std::optional<array> attend_rows(const array& joint, const AttendedRows& rows, mx::StreamOrDevice s) {
  if (traced(joint) || !takes_attend_rows(joint.shape(), joint.dtype(), rows, s)) {
    return std::nullopt;
  }
  return attend_rows_to(joint, 1, rows, s);
}

array attend_rows_to(const array& joint, int joint_parts, const AttendedRows& rows, mx::StreamOrDevice s) {
  auto& heads = rows.heads;
  int batch = rows.keys.shape(0);
  auto dtype = rows.keys.dtype();
  int team = heads_a_block(heads);
  int teams = heads.heads / team;
  int multiprocessors = streaming_gpu(s)->multiprocessors;
  int blocks = batch * teams;
  auto& [used, starts, positions] = rows.sequences;
  int parts = parts_for(used - *std::min_element(starts.begin(), starts.end()), blocks, multiprocessors);
  // A block that has a multiprocessor to itself has the registers to read ahead.
  int depth = blocks * parts <= multiprocessors ? 4 : 1;
  std::vector<array> inputs = {rows.keys, rows.values, joint, sizes_of(rows.sequences, rows.keys.shape(2), s)};
  for (auto* more : {&rows.query_weight, &rows.key_weight, &rows.freqs}) {
    if (*more) {
      inputs.push_back(**more);
    }
  }
  auto& angles = heads.angles;
  Launch launch = {
      {parts, teams, batch},
      threads,
      {{"HEADS", heads.heads},
       {"KV_HEADS", heads.kv_heads},
       {"HEAD_DIMS", heads.dims},
       {"HEADS_A_BLOCK", team},
       {"ROTATED", heads.rotated},
       {"HEAD_EPS", bits_of(heads.eps)},
       {"ROPE_SCALE", bits_of(angles.scale)},
       {"LOG2_BASE", bits_of(std::log2(angles.base.value_or(1.0f)))},
       {"SCORE_SCALE", bits_of(heads.scale)},
       {"DEPTH", depth},
       {"JOINT_PARTS", joint_parts}}};
  auto& kernel = kernel_of(heads.normed, rows.freqs.has_value(), parts > 1);
  mx::Shape result = {batch, 1, heads.heads * heads.dims};
  if (parts == 1) {
    return kernel(inputs, {result}, launch, s)[0];
  }
  mx::Shape in_parts = {batch, teams, parts, team, heads.dims + 4};
  auto all = kernel(inputs, {in_parts}, {mx::float32}, launch, s)[0];
  static Kernel together(
      "mlxlm_join_parts", {"parts"}, {"out"}, join_parts_source, stream_header() + token_header + attention_header);
  return together(
      {all}, {result}, {dtype}, {{teams, batch, 1}, 128, {{"HEAD_DIMS", heads.dims}, {"HEADS_A_BLOCK", team}}}, s)[0];
}

} // namespace mlxlm::cuda
