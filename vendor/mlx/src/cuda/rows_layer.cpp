#include "cuda/rows_layer.h"

#include <algorithm>

#include "cuda/attention_parts.h"
#include "cuda/composite.h"
#include "cuda/dense.h"
#include "cuda/heads.h"
#include "cuda/kernel.h"
#include "cuda/kernels.h"
#include "cuda/meeting.h"
#include "cuda/peers.h"
#include "cuda/products.h"
#include "cuda/rows.h"
#include "cuda/rows_sources.h"
#include "cuda/stream.h"
#include "cuda/token_parts.h"
#include "ours.h"

namespace mlxlm::cuda {

namespace {

// How many numbers a row of the matrix gives, given so many of this dtype; nothing where this is none that is read here.
std::optional<int> outputs_of(const cpu::Matrix& matrix, int inputs, mx::Dtype dtype) {
  auto& [arrays, layout] = matrix;
  if (layout.block_type != 0 || arrays.size() != layout.arrays()) {
    return std::nullopt;
  }
  auto& w = arrays[0];
  auto& packing = layout.packing;
  int64_t given = packing ? static_cast<int64_t>(inputs) * packing->bits / 32 : inputs;
  bool fits = w.ndim() == 2 && w.shape(1) == given && w.shape(0) % 8 == 0 && w.dtype() == (packing ? mx::uint32 : dtype);
  bool ready = std::all_of(arrays.begin(), arrays.end(), [](const array& a) {
    return a.status() != array::Status::unscheduled && !traced(a);
  });
  // Of another dtype they would have the results in another one, too.
  for (size_t i = 1; packing && packing->is_affine() && i < 3; ++i) {
    fits = fits && arrays[i].dtype() == dtype;
  }
  if (layout.biased) {
    fits = fits && arrays.back().dtype() == dtype && arrays.back().size() == static_cast<size_t>(w.shape(0));
  }
  return fits && ready ? std::optional(w.shape(0)) : std::nullopt;
}

// x (B, K) → (B, N)
array product(const array& x, const cpu::Matrix& matrix, mx::StreamOrDevice s) {
  auto& [arrays, layout] = matrix;
  if (!layout.packing) {
    auto w = transposed(arrays[0]);
    return layout.biased ? mx::addmm(arrays.back(), x, w, 1.0f, 1.0f, s) : ours::matmul(x, w, s);
  }
  auto& how = *layout.packing;
  auto biases = how.is_affine() ? std::optional(arrays[2]) : std::nullopt;
  auto out = ours::quantized_matmul(x, arrays[0], arrays[1], biases, true, how.group, how.bits, how.mode, s);
  return layout.biased ? mx::add(out, arrays.back(), s) : out;
}

// Whether the matrix's products with so many rows come in parts.
bool comes_in_parts(const cpu::Matrix& matrix, int rows, mx::StreamOrDevice s) {
  bool plain = !matrix.layout.packing && !matrix.layout.biased;
  return plain && takes_dense_weight(rows, matrix.arrays[0].dtype(), matrix.arrays[0], s);
}

// x (B, K) → (B, N), or parts of it in float32, (parts, B, N)
array product_or_parts(const array& x, const cpu::Matrix& matrix, mx::StreamOrDevice s) {
  return comes_in_parts(matrix, x.shape(0), s) ? dense_row_parts(x, matrix.arrays[0], s) : product(x, matrix, s);
}

// The gated products of x (B, K): (B, M)
array gated_product(const array& x, const cpu::Matrix& joint, bool gelu, mx::StreamOrDevice s) {
  if (comes_in_parts(joint, x.shape(0), s) && takes_gated_rows(x.shape(0), joint.arrays[0], s)) {
    return gated_rows(x, joint.arrays[0], gelu, s);
  }
  auto both = product_or_parts(x, joint, s);
  static Kernel kernel(
      "mlxlm_gate_rows", {"joint"}, {"out"}, gate_rows_source,
      stream_header() + token_header + attention_header + in_parts_header);
  int rows = x.shape(0);
  int inner = both.shape(-1) / 2;
  constexpr int threads = 128;
  int blocks = (rows * (inner / 8) + threads - 1) / threads;
  int parts = both.ndim() == 3 ? both.shape(0) : 1;
  return kernel(
      {both}, {{rows, inner}}, {x.dtype()},
      {{blocks, 1, 1}, threads, {{"INNER", inner}, {"PARTS", parts}, {"GELU", gelu ? 1 : 0}}}, s)[0];
}

// Delta (B, K), or parts of it in float32, as a whole; with a group the sum of all ranks' parts.
array whole_of(const array& delta, const std::optional<mx::distributed::Group>& group, mx::Dtype dtype, mx::StreamOrDevice s) {
  auto own = delta.ndim() == 3 ? sum_parts(delta, dtype, s) : delta;
  return group ? ours::all_sum(own, group, s) : own;
}

// x (B, K) + delta and its norm. Delta is (B, K), or parts of it in float32; with a group this rank's part of a sum.
std::vector<array> add_and_norm(
    const array& x, const array& delta, const std::optional<mx::distributed::Group>& group, const array& weight, float eps,
    mx::StreamOrDevice s) {
  bool in_parts = delta.ndim() == 3;
  if (in_parts && !group) {
    return add_parts_rms_norm(x, delta, weight, eps, s);
  }
  if (in_parts) {
    if (auto parts = peer_sum_parts_norm(x, delta, *group, weight, eps, s)) {
      return *std::move(parts);
    }
  }
  return ours::add_rms_norm(x, whole_of(delta, group, x.dtype(), s), weight, eps, s);
}

// What a normed result is added to, (B, K), and the norm of the sum.
struct Next {
  const array& x;
  const cpu::RowNorm& norm;
};

// The norm of delta (B, K), or of parts of it in float32; with `next` the sum, and its norm.
std::vector<array> norm_behind(
    const array& delta, const cpu::RowNorm& behind, const std::optional<Next>& next, mx::StreamOrDevice s) {
  auto kernel_of = [](bool adds) {
    std::vector<std::string> inputs = {"behind", "delta"};
    std::vector<std::string> outputs = {"normed"};
    if (adds) {
      inputs.insert(inputs.end(), {"x", "weight"});
      outputs.insert(outputs.begin(), "sum");
    }
    std::string name = adds ? "mlxlm_norm_behind_and_next" : "mlxlm_norm_behind";
    return Kernel(
        name, inputs, outputs, norm_behind_source,
        std::string("#define ADDS ") + (adds ? "1" : "0") + "\n" + stream_header() + token_header + attention_header +
            in_parts_header);
  };
  static Kernel alone = kernel_of(false);
  static Kernel with_next = kernel_of(true);
  bool in_parts = delta.ndim() == 3;
  mx::Shape shape = {delta.shape(-2), delta.shape(-1)};
  Launch launch = {
      {shape[0], 1, 1},
      32 * stream_warps,
      {{"DIMS", shape[1]}, {"PARTS", in_parts ? delta.shape(0) : 1}, {"BEHIND_EPS", bits_of(behind.eps)}}};
  if (!next) {
    return alone({behind.weight, delta}, {shape}, launch, s);
  }
  launch.constants.emplace_back("EPS", bits_of(next->norm.eps));
  return with_next({behind.weight, delta, next->x, next->norm.weight}, {shape, shape}, launch, s);
}

// What a layer is beside its inputs.
struct Plan {
  cpu::TokenLayer layer;
  SequenceRows sequences;
  bool adds;
  bool adds_part; // what is added is this rank's part of a sum

  AttendedRows rows(const array& keys, const array& values) const {
    auto& attention = layer.attention;
    return {keys, values, attention.query_weight, attention.key_weight, attention.freqs, attention.heads, sequences};
  }

  bool fits(const array& x, mx::StreamOrDevice s) const {
    auto& attention = layer.attention;
    auto& feed = layer.feed;
    int dims = x.shape(2);
    auto dtype = x.dtype();
    int width = attention.heads.heads * attention.heads.dims;
    auto is_norm = [&](const array& weight) { return is_weight(weight, dims, dtype); };
    if (attention.joint.size() != 1 || feed.joint.size() != 1 || !cpu::norms_fit(layer, is_norm)) {
      return false;
    }
    auto joint = outputs_of(attention.joint[0], dims, dtype);
    auto last = outputs_of(attention.last, width, dtype);
    auto gates = outputs_of(feed.joint[0], dims, dtype);
    auto down = gates && *gates % 16 == 0 ? outputs_of(feed.last, *gates / 2, dtype) : std::nullopt;
    return joint && last == dims && down == dims &&
        takes_attend_rows({x.shape(0), 1, *joint}, dtype, rows(attention.keys, attention.values), s);
  }

  // Of its weights those that are not there yet.
  void add_awaited(std::vector<array>& inputs) const {
    auto add = [&](const array& a) {
      if (is_awaited(a)) {
        inputs.push_back(a);
      }
    };
    auto& [first, attention, second, feed, behind] = layer;
    for (auto* matrix : {&attention.joint[0], &attention.last, &feed.joint[0], &feed.last}) {
      std::for_each(matrix->arrays.begin(), matrix->arrays.end(), add);
    }
    for (auto* weight : {&attention.query_weight, &attention.key_weight, &attention.freqs}) {
      if (*weight) {
        add(**weight);
      }
    }
    add(first.weight);
    add(second.weight);
    if (behind) {
      add(behind->attention.weight);
      add(behind->feed.weight);
    }
  }

  // Whether the block's result comes in parts.
  bool gives_parts(int rows, mx::StreamOrDevice s) const {
    return !layer.behind && comes_in_parts(layer.feed.last, rows, s);
  }

  // x, [delta], keys, values, … , [what the kernels of ranks come behind] → h (B, K) and the block's own result, or parts of that
  std::vector<array> operator()(const std::vector<array>& inputs, mx::Stream s) const {
    auto& [first, attention, second, feed, behind] = layer;
    auto& group = attention.group;
    std::optional<MeetingsWithin> within;
    if (group) {
      within.emplace(inputs.back());
    }
    mx::Shape shape = {inputs[0].shape(0), inputs[0].shape(2)};
    auto x = mx::reshape(inputs[0], shape, s);
    auto normed = x;
    if (adds) {
      auto delta = inputs[1].dtype() == mx::float32 ? inputs[1] : mx::reshape(inputs[1], shape, s);
      auto parts = add_and_norm(x, delta, adds_part ? group : std::nullopt, first.weight, first.eps, s);
      x = parts[0];
      normed = parts[1];
    } else {
      normed = ours::rms_norm(x, first.weight, first.eps, s);
    }
    auto joint = product_or_parts(normed, attention.joint[0], s);
    int joint_parts = joint.ndim() == 3 ? joint.shape(0) : 1;
    auto attended = attend_rows_to(joint, joint_parts, rows(inputs[adds + 1], inputs[adds + 2]), s);
    auto rows = mx::reshape(attended, {shape[0], attended.shape(2)}, s);
    auto own = product_or_parts(rows, attention.last, s);
    auto parts = behind ? norm_behind(group ? whole_of(own, group, x.dtype(), s) : own, behind->attention, Next{x, second}, s)
                        : add_and_norm(x, own, group, second.weight, second.eps, s);
    if (group) {
      forget_sums();
    }
    auto gated = gated_product(parts[1], feed.joint[0], feed.gelu, s);
    auto fed = product_or_parts(gated, feed.last, s);
    if (behind) {
      fed = norm_behind(group ? whole_of(fed, group, x.dtype(), s) : fed, behind->feed, std::nullopt, s)[0];
      if (group) {
        forget_sums();
      }
    }
    return {parts[0], fed};
  }
};

} // namespace

std::vector<array> layer_rows(
    const array& x, const std::optional<array>& delta, cpu::TokenLayer layer, SequenceRows sequences, mx::StreamOrDevice s) {
  auto group = layer.attention.group;
  bool is_rows = x.ndim() == 3 && x.shape(1) == 1 && is_half(x.dtype()) && !traced(x) &&
      (!delta || (delta->shape() == x.shape() && delta->dtype() == x.dtype() && !traced(*delta)));
  if (!is_rows || (group && !row_peers(*group, x.shape(2)))) {
    return {};
  }
  Plan plan = {std::move(layer), std::move(sequences), delta.has_value(), false};
  if (!plan.fits(x, s)) {
    return {};
  }
  std::vector<array> inputs = {x};
  if (delta) {
    auto part = group ? take_peer_sum(*delta) : std::nullopt;
    plan.adds_part = part.has_value();
    auto own = part ? *part : *delta;
    inputs.push_back(parts_of(own).value_or(own));
  }
  inputs.insert(inputs.end(), {plan.layer.attention.keys, plan.layer.attention.values});
  plan.add_awaited(inputs);
  auto stream = mx::to_stream(s);
  if (group) {
    inputs.push_back(after_meetings(stream));
  }
  int rows = x.shape(0);
  int parts = plan.gives_parts(rows, s) ? dense_parts(rows, plan.layer.feed.last.arrays[0], s) : 1;
  bool whole = parts == 1;
  bool is_sum = !group || plan.layer.behind;
  auto shape = whole ? x.shape() : mx::Shape{parts, rows, x.shape(2)};
  auto operations = [plan = std::move(plan), stream](const std::vector<array>& given) { return plan(given, stream); };
  auto results = composite(
      {x.shape(), shape}, {x.dtype(), whole ? x.dtype() : mx::float32}, std::move(inputs), std::move(operations), stream);
  if (group) {
    remember_meeting(results[1]);
  }
  // The next layer takes the parts as they are.
  auto own = whole ? results[1] : sum_parts(results[1], x.shape(), x.dtype(), s);
  results[1] = is_sum ? own : ours::all_sum(own, group, s);
  return results;
}

} // namespace mlxlm::cuda
