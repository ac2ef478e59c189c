// Kernels whose blocks wait for each other.
#pragma once

#include "abi.h"

namespace mlxlm::cuda {

// The greatest number of counters beside the one of the meetings.
constexpr int most_counters = 512;

// Adds what such a kernel takes beside its own inputs: `state`, counters that go on from kernel to kernel; and `after`.
// Two such kernels must not be on the GPU at once, since each would wait for multiprocessors that the other has. In one
// CUDA graph they could be, if neither took what the other gives: so each takes what the one before it gives.
void add_meeting(std::vector<const char*>& names, std::vector<array>& inputs, mx::Stream s);

// What the newest of them gives.
void remember_meeting(const array& result);

} // namespace mlxlm::cuda
