#include "cpu/packing.h"

namespace mlxlm::cpu {

std::optional<Format> format_of(const Quantization& q) {
  if (q.mode == "mxfp4" && q.bits == 4 && q.group == 32) {
    return Format::mxfp4;
  }
  if (q.mode == "mxfp8" && q.bits == 8 && q.group == 32) {
    return Format::mxfp8;
  }
  if (q.mode == "nvfp4" && q.bits == 4 && q.group == 16) {
    return Format::nvfp4;
  }
  if (!q.is_affine() || (q.group != 32 && q.group != 64 && q.group != 128)) {
    return std::nullopt;
  }
  switch (q.bits) {
    case 2:
      return Format::affine2;
    case 3:
      return Format::affine3;
    case 4:
      return Format::affine4;
    case 5:
      return Format::affine5;
    case 6:
      return Format::affine6;
    case 8:
      return Format::affine8;
    default:
      return std::nullopt;
  }
}

Quantization quantization(std::optional<int> group, std::optional<int> bits, const std::string& mode, bool transposed) {
  int usual_group = mode == "affine" ? 64 : mode == "nvfp4" ? 16 : 32;
  int usual_bits = mode == "mxfp8" ? 8 : 4;
  return {group.value_or(usual_group), bits.value_or(usual_bits), mode, transposed};
}

} // namespace mlxlm::cpu
