// How the matrices of quantized products are stored, as MLX's arguments say it.
#pragma once

#include <optional>
#include <string>

#include "cpu/dtypes.h"

namespace mlxlm::cpu {

struct Quantization {
  int group;
  int bits;
  std::string mode;
  bool transposed;

  bool operator==(const Quantization&) const = default;
  bool is_affine() const {
    return mode == "affine";
  }
};

// What is absent is the mode's own.
Quantization quantization(std::optional<int> group, std::optional<int> bits, const std::string& mode, bool transposed);

// Nothing where no kernel of ours reads it.
std::optional<Format> format_of(const Quantization& q);

} // namespace mlxlm::cpu
