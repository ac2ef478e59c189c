// A dtype that is known at run time, for templates that want it at compile time.
#pragma once

#include "cpu/dtypes.h"

namespace mlxlm::cpu::MLXLM_ISA {

// A value that templates can tell apart.
template <auto v>
struct Constant {
  static constexpr auto value = v;
};

// Calls body(Constant<type>()).
template <class Body>
inline void with_type(Float type, Body&& body) {
  switch (type) {
    case Float::f32:
      return body(Constant<Float::f32>());
    case Float::bf16:
      return body(Constant<Float::bf16>());
    default:
      return body(Constant<Float::f16>());
  }
}

} // namespace mlxlm::cpu::MLXLM_ISA
