// What attention of many queries and of one have in common.
#pragma once

#include "cpu/attention.h"
#include "cpu/math.h"
#include "cpu/typed.h"
#include "cpu/vec.h"

namespace mlxlm::cpu::MLXLM_ISA {

// What a masked score becomes, as in MLX: the least finite number, so that a row without any key is an average.
inline float masked_score(Float type) {
  return type == Float::f16 ? -65504.0f : type == Float::bf16 ? -0x1.FEp127f : -0x1.FFFFFEp127f;
}

inline const void* at(const void* base, int64_t element, Float type) {
  return static_cast<const char*>(base) + element * (type == Float::f32 ? 4 : 2);
}
inline void* at(void* base, int64_t element, Float type) {
  return static_cast<char*>(base) + element * (type == Float::f32 ? 4 : 2);
}

inline float number(const void* from, Float type) {
  return load_some_as(type, from, 0, 1)[0];
}

inline float mask_at(const Attention& a, int64_t element, float score) {
  switch (a.mask_kind) {
    case Mask::boolean:
      return static_cast<const bool*>(a.mask)[element] ? score : masked_score(a.type);
    case Mask::f32:
      return score + static_cast<const float*>(a.mask)[element];
    case Mask::bf16:
      return score + number(static_cast<const uint16_t*>(a.mask) + element, Float::bf16);
    case Mask::f16:
      return score + number(static_cast<const uint16_t*>(a.mask) + element, Float::f16);
    default:
      return score;
  }
}

} // namespace mlxlm::cpu::MLXLM_ISA
