// Bytes from host to GPU through pinned memory, which the GPU reads by itself: from pageable memory the driver copies twice.
#pragma once

#include <functional>

#include "abi.h"
#include "cuda/driver.h"

namespace mlxlm::cuda {

using Context = void*;

// Whether a stream is the GPU's and this way is open: the driver gives pinned memory, 2 MiB for each of so many threads. It
// is kept until the process ends.
bool can_stage(mx::Stream stream, int threads);

// The context of the calling thread: MLX's, while it evaluates.
Context current_context();

// Where an evaluated array's data lies.
Address address_of(const array& a);

// Copies bytes [first, first + count) of an array at `to`, which `read(begin, count, data)` brings. They are on the GPU
// when this returns. 0, or the driver's error. Calls of one thread, by its number, must not overlap.
int stage(
    int thread, Context context, Address to, size_t first, size_t count,
    const std::function<void(size_t begin, size_t count, char* data)>& read);

} // namespace mlxlm::cuda
