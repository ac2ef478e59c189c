// How much work xgrammar's parser has done: CMakeLists.txt makes it count, and end a search that takes too many steps. Time
// would not do: the same request must have the same answer.
#ifndef MLXLM_XGRAMMAR_STEPS_H_
#define MLXLM_XGRAMMAR_STEPS_H_

#include <cstdint>

namespace xgrammar {

// Of this thread: states that rules which have ended were compared with.
inline uint64_t& Steps() {
  static thread_local uint64_t steps = 0;
  return steps;
}

} // namespace xgrammar

#endif
