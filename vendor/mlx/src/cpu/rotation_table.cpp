#include "cpu/rotation_table.h"

#include <cmath>
#include <mutex>

namespace mlxlm::cpu {

std::vector<float> inverse_frequencies(int rotated, const Angles& angles, const array* freqs) {
  std::vector<float> inverse(rotated / 2);
  float step = angles.base ? std::log(*angles.base) / static_cast<float>(rotated / 2) : 0;
  for (int i = 0; i < rotated / 2; ++i) {
    inverse[i] = freqs ? 1.0f / freqs->data<float>()[i * freqs->strides(0)] : std::exp(static_cast<float>(-i) * step);
  }
  return inverse;
}

std::shared_ptr<const RotationTable> rotation_table(
    std::vector<float> inverse, float scale, int offset, int positions) {
  static std::mutex mutex;
  static auto* kept = new std::vector<std::shared_ptr<const RotationTable>>();
  std::lock_guard lock(mutex);
  for (auto& table : *kept) {
    if (table->offset == offset && table->positions == positions && table->scale == scale &&
        table->inverse == inverse) {
      return table;
    }
  }
  auto made = std::make_shared<RotationTable>();
  made->scale = scale;
  made->offset = offset;
  made->positions = positions;
  for (int t = 0; t < positions; ++t) {
    for (float frequency : inverse) {
      float angle = static_cast<float>(offset + t) * scale * frequency;
      made->cosines.push_back(std::cos(angle));
      made->sines.push_back(std::sin(angle));
    }
  }
  made->inverse = std::move(inverse);
  if (kept->size() == 2) {
    kept->erase(kept->begin());
  }
  kept->push_back(made);
  return made;
}

} // namespace mlxlm::cpu
