// The number formats that CPU kernels know.
#pragma once

#include <cstdint>

namespace mlxlm::cpu {

enum class Float : uint8_t { f32, f16, bf16 };

// How a matrix's numbers are stored: plainly, or quantized in groups along a row. Affine formats have a scale and a bias
// a group; mxfp4 and mxfp8 a power of two in a byte; nvfp4 an e4m3 number in a byte. Or in ggml's blocks, of any type.
enum class Format : uint8_t {
  f32,
  f16,
  bf16,
  affine2,
  affine3,
  affine4,
  affine5,
  affine6,
  affine8,
  mxfp4,
  mxfp8,
  nvfp4,
  blocks,
};

} // namespace mlxlm::cpu
