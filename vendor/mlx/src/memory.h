// The memory there is, and what happens where it does not suffice.
#pragma once

#include <cstdint>

namespace mlxlm {

// Bytes that the process may still take: of the machine, its swap and its control groups; -1 where the system does not
// say.
int64_t available_memory();

} // namespace mlxlm
