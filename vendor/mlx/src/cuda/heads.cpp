#include "cuda/heads.h"

#include <algorithm>

#include "cuda/stream.h"

namespace mlxlm::cuda {

bool heads_fit(const cpu::Heads& heads) {
  return heads.heads > 0 && heads.kv_heads > 0 && heads.heads % heads.kv_heads == 0 && heads.used >= 0 &&
      (heads.dims == 64 || heads.dims == 128 || heads.dims == 256) && heads.rotated >= 0 && heads.rotated % 2 == 0 &&
      heads.rotated <= heads.dims;
}

bool weights_fit(
    const cpu::Heads& heads, const std::optional<array>& query_weight, const std::optional<array>& key_weight,
    const std::optional<array>& freqs, mx::Dtype dtype) {
  auto fits = [&](const std::optional<array>& weight) {
    return weight.has_value() == heads.normed && (!weight || is_weight(*weight, heads.dims, dtype));
  };
  return fits(query_weight) && fits(key_weight) &&
      (!freqs || (freqs->dtype() == mx::float32 && static_cast<int>(freqs->size()) == heads.rotated / 2));
}

bool is_weight(const array& weight, int64_t count, mx::Dtype dtype) {
  return weight.ndim() == 1 && weight.dtype() == dtype && weight.shape(0) == count && lies_ready(weight);
}

int heads_a_block(const cpu::Heads& heads) {
  int queries = heads.heads / heads.kv_heads;
  int most = std::min(4, queries);
  while (queries % most != 0) {
    --most;
  }
  return most;
}

std::string head_defines(bool normed, bool by_freqs) {
  return std::string("#define NORMS ") + (normed ? "1" : "0") + "\n#define FREQS " + (by_freqs ? "1" : "0") +
      "\n#define QUERY_NORM " + (normed ? "query_norm" : "nullptr") + "\n#define KEY_NORM " +
      (normed ? "key_norm" : "nullptr") + "\n#define WAVES " + (by_freqs ? "freqs" : "nullptr") + "\n";
}

array sizes_of_step(std::vector<int> sizes) {
  static std::optional<std::pair<std::vector<int>, array>> last;
  if (!last || last->first != sizes) {
    auto made = array(sizes.begin(), mx::Shape{static_cast<int>(sizes.size())}, mx::int32);
    last.emplace(std::move(sizes), std::move(made));
  }
  return last->second;
}

} // namespace mlxlm::cuda
