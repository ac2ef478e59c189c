// How much work xgrammar's parser does: CMakeLists.txt makes it count. Of an ambiguous grammar each byte takes longer than the last, without
// end. A limit of time would not do: the same request must have the same answer.
#ifndef MLXLM_XGRAMMAR_STEPS_H_
#define MLXLM_XGRAMMAR_STEPS_H_

#include <cstdint>

namespace xgrammar {

struct TooManySteps {};

// Of this thread: states that rules which have ended were compared with, some ten million in a second.
inline uint64_t& Steps() {
  static thread_local uint64_t steps = 0;
  return steps;
}

inline uint64_t& LastStep() {
  static thread_local uint64_t last = UINT64_MAX;
  return last;
}

inline void CountSteps(uint64_t count) {
  if ((Steps() += count) > LastStep()) {
    throw TooManySteps();
  }
}

// While it lives, the parser throws where this thread takes more steps. It is to be thrown away then.
class StepLimit {
 public:
  explicit StepLimit(uint64_t most) {
    LastStep() = Steps() + most;
  }
  ~StepLimit() {
    LastStep() = UINT64_MAX;
  }
  StepLimit(const StepLimit&) = delete;
};

} // namespace xgrammar

#endif
