#include "cuda/meeting.h"

#include "mlx/ops.h"

namespace mlxlm::cuda {

namespace {

std::optional<array> newest;

// Never freed: at the process's end the device is gone first.
const array& counters(mx::Stream s) {
  static const array* made = [&] {
    auto* zeros = new array(mx::zeros({1 + most_counters}, mx::uint64, s));
    zeros->eval();
    return zeros;
  }();
  return *made;
}

} // namespace

void add_meeting(std::vector<const char*>& names, std::vector<array>& inputs, mx::Stream s) {
  bool waits = newest && newest->status() == array::Status::unscheduled;
  names.insert(names.end(), {"state", "after"});
  inputs.push_back(counters(s));
  inputs.push_back(waits ? *newest : counters(s));
}

void remember_meeting(const array& result) {
  newest = result;
}

} // namespace mlxlm::cuda
