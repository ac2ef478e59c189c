#include "cuda/kernels.h"


#include "cuda/kernel.h"
#include "cuda/kernel_sources.h"
#include "cuda/stream.h"

namespace mlxlm::cuda {

bool takes_add_rms_norm(const array& x, const array& delta, const array& weight, mx::StreamOrDevice s) {
  if (x.ndim() < 2 || x.shape() != delta.shape() || x.dtype() != delta.dtype() || x.dtype() != weight.dtype()) {
    return false;
  }
  int dims = x.shape(-1);
  return is_half(x.dtype()) && dims % 8 == 0 && dims <= 8 * 1024 * 4 && x.size() > 0 && on_gpu(s) &&
      !traced(x, delta, weight);
}

namespace {

// `parts` of delta in float32; 0 where it is whole.
std::vector<array> add_and_norm(
    const array& x, const array& delta, int parts, const array& weight, float eps, mx::StreamOrDevice s) {
  static Kernel kernel("mlxlm_add_rms_norm", {"x", "delta", "weight"}, {"sum", "normed"}, add_rms_norm_source);
  int dims = x.shape(-1);
  int rows = static_cast<int>(x.size() / dims);
  int vectors = dims / 8;
  int threads = std::min(1024, (vectors + 31) / 32 * 32);
  int chunks = (vectors + threads - 1) / threads;
  return kernel(
      {x, delta, weight}, {x.shape(), x.shape()},
      {{rows, 1, 1}, threads, {{"DIMS", dims}, {"CHUNKS", chunks}, {"PARTS", parts}, {"EPS", bits_of(eps)}}}, s);
}

} // namespace

std::vector<array>
add_rms_norm(const array& x, const array& delta, const array& weight, float eps, mx::StreamOrDevice s) {
  return add_and_norm(x, delta, 0, weight, eps, s);
}

std::vector<array>
add_parts_rms_norm(const array& x, const array& parts, const array& weight, float eps, mx::StreamOrDevice s) {
  return add_and_norm(x, parts, parts.shape(0), weight, eps, s);
}

bool takes_rotate_heads(const array& joint, int dims, int rotated, mx::StreamOrDevice s) {
  return joint.ndim() == 3 && joint.shape(1) == 1 && is_half(joint.dtype()) && dims % 32 == 0 && dims <= 512 &&
      rotated <= dims && rotated % 64 == 0 && on_gpu(s) && !traced(joint);
}

std::vector<array> rotate_heads(
    const array& joint, int heads, int kv_heads, const std::optional<array>& query_weight,
    const std::optional<array>& key_weight, float eps, int rotated, std::optional<float> base, float scale, int offset,
    const std::optional<array>& freqs, mx::StreamOrDevice s) {
  bool norms = query_weight && key_weight;
  // The same position serves every layer of a step.
  static std::optional<std::pair<int, array>> last;
  if (!last || last->first != offset) {
    last.emplace(offset, array(offset, mx::int32));
  }
  std::vector<std::string> names = {"joint", "offset"};
  std::vector<array> inputs = {joint, last->second};
  if (norms) {
    names.insert(names.end(), {"query_weight", "key_weight"});
    inputs.insert(inputs.end(), {*query_weight, *key_weight});
  }
  if (freqs) {
    names.push_back("freqs");
    inputs.push_back(*freqs);
  }
  static std::optional<Kernel> kernels[4];
  auto& kernel = kernels[(norms ? 2 : 0) + (freqs ? 1 : 0)];
  if (!kernel) {
    std::string kinds = std::string(norms ? "1" : "0") + (freqs ? "1" : "0");
    std::string header = std::string("#define NORMS ") + kinds[0] + "\n#define FREQS " + kinds[1] + "\n";
    kernel.emplace(
        "mlxlm_rotate_heads_" + kinds, names, std::vector<std::string>{"queries", "keys", "values"},
        rotate_heads_source, header);
  }
  int all = heads + 2 * kv_heads;
  int batch = joint.shape(0);
  int dims = joint.shape(2) / all;
  constexpr int threads = 128;
  int blocks = (all * 32 + threads - 1) / threads;
  mx::Shape queries = {batch, heads, 1, dims};
  mx::Shape others = {batch, kv_heads, 1, dims};
  return (*kernel)(
      inputs, {queries, others, others},
      {{blocks, batch, 1},
       threads,
       {{"HEADS", heads},
        {"KV_HEADS", kv_heads},
        {"DIMS", dims},
        {"ROTATED", rotated},
        {"EPS", bits_of(eps)},
        {"SCALE", bits_of(scale)},
        {"LOG2_BASE", bits_of(std::log2(base.value_or(1.0f)))}}},
      s);
}

bool takes_quantized_row(
    const array& x, const array& w, const array& scales, const array& biases, int group_size, int bits,
    mx::StreamOrDevice s) {
  if (!is_half(x.dtype()) || scales.dtype() != x.dtype() || biases.dtype() != x.dtype() || (bits != 4 && bits != 8)) {
    return false;
  }
  if (w.ndim() != 2 || scales.ndim() != 2 || scales.shape() != biases.shape() || w.shape(1) % 4 != 0) {
    return false;
  }
  int inputs = w.shape(1) * 32 / bits;
  return (group_size == 32 || group_size == 64 || group_size == 128) && x.ndim() > 0 && x.shape(-1) == inputs &&
      x.size() == static_cast<size_t>(inputs) && scales.shape(0) == w.shape(0) &&
      scales.shape(1) * group_size == inputs && on_gpu(s) && !traced(x, w, scales, biases);
}

array quantized_row(
    const array& x, const array& w, const array& scales, const array& biases, int group_size, int bits,
    mx::StreamOrDevice s) {
  if (takes_stream_row(x, w, scales, biases, group_size, bits, s)) {
    return stream_row(x, w, scales, biases, group_size, bits, s);
  }
  static Kernel kernel("mlxlm_quantized_row", {"x", "w", "scales", "biases"}, {"product"}, quantized_row_source);
  int outputs = w.shape(0);
  auto shape = x.shape();
  shape.back() = outputs;
  // Few outputs: more warps, so that every multiprocessor has enough of them. Many: more work for each value of x.
  int rows = outputs >= 8192 ? 4 : outputs >= 2048 ? 2 : 1;
  constexpr int threads = 128;
  int warps = (outputs + rows - 1) / rows;
  int blocks = (warps * 32 + threads - 1) / threads;
  return kernel(
      {x, w, scales, biases}, {shape},
      {{blocks, 1, 1}, threads, {{"BITS", bits}, {"GROUP", group_size}, {"ROWS", rows}}}, s)[0];
}

bool takes_mask_logits(const array& logits, mx::StreamOrDevice s) {
  bool known = is_half(logits.dtype()) || logits.dtype() == mx::float32;
  return known && logits.size() > 0 && on_gpu(s) && !traced(logits);
}

array mask_logits(const array& logits, const array& bits, mx::StreamOrDevice s) {
  static Kernel kernel("mlxlm_mask_logits", {"logits", "bits"}, {"masked"}, mask_logits_source);
  constexpr int threads = 256;
  int blocks = (logits.shape(1) + threads - 1) / threads;
  return kernel({logits, bits}, {logits.shape()}, {{blocks * threads, logits.shape(0), 1}, threads, {}}, s)[0];
}

bool takes_argmax(const array& x, int axis, mx::StreamOrDevice s) {
  constexpr int worth_it = 4096;
  bool last = axis == -1 || axis == static_cast<int>(x.ndim()) - 1;
  bool known = is_half(x.dtype()) || x.dtype() == mx::float32;
  return last && known && x.ndim() > 0 && x.size() > 0 && x.shape(-1) >= worth_it && on_gpu(s) && !traced(x);
}

array argmax(const array& x, mx::StreamOrDevice s) {
  static Kernel kernel("mlxlm_argmax", {"x"}, {"place"}, argmax_source);
  int count = x.shape(-1);
  int rows = static_cast<int>(x.size() / count);
  auto shape = x.shape();
  shape.back() = 1;
  return kernel(
      {mx::reshape(x, {rows, count}, s)}, {shape}, {mx::uint32},
      {{rows, 1, 1}, 1024, {}}, s)[0];
}

} // namespace mlxlm::cuda
