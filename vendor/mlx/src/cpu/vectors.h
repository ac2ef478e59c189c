// Rows in vectors, the last of which may be a part, for one instruction set.
#pragma once

#include "cpu/vec.h"

namespace mlxlm::cpu::MLXLM_ISA {

// Calls body(i, count) for all whole vectors of [from, to), then for what is left.
template <class Body>
inline void for_vectors(int64_t from, int64_t to, Body&& body) {
  int64_t i = from;
  for (; i + lanes <= to; i += lanes) {
    body(i, lanes);
  }
  if (i < to) {
    body(i, static_cast<int>(to - i));
  }
}

inline F get(Float type, const void* from, int64_t i, int count) {
  return count == lanes ? load_as(type, from, i) : load_some_as(type, from, i, count);
}

inline void put(Float type, void* to, int64_t i, F value, int count) {
  count == lanes ? store_as(type, to, i, value) : store_some_as(type, to, i, value, count);
}

} // namespace mlxlm::cpu::MLXLM_ISA
