// Counts the work of xgrammar's parser, so that a search can end after so many steps. CMakeLists.txt puts both into its sources. A limit of
// time would not do: the same request must have the same answer.
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
