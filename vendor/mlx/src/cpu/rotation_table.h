// The angles by which heads are turned.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "abi.h"

namespace mlxlm::cpu {

// The angles of a rotation by halves: those of `freqs` (wavelengths), else of a base.
struct Angles {
  std::optional<float> base;
  float scale;
  int offset;

  bool operator==(const Angles&) const = default;
};

// Frequencies in float32, as MLX has them: rotated / 2 of them.
std::vector<float> inverse_frequencies(int rotated, const Angles& angles, const array* freqs);

// Cosines and sines, (positions, rotated / 2) each.
struct RotationTable {
  std::vector<float> inverse;
  float scale;
  int offset;
  int positions;
  std::vector<float> cosines;
  std::vector<float> sines;
};

// Every layer of a step turns by the same angles: the last tables are kept. Gemma's layers have two kinds in turn.
std::shared_ptr<const RotationTable> rotation_table(
    std::vector<float> inverse, float scale, int offset, int positions);

} // namespace mlxlm::cpu
