// Bytes from host to GPU through pinned memory, which the GPU reads by itself: from pageable memory the driver copies twice.
#pragma once

#include <functional>

#include "abi.h"

namespace mlxlm::cuda {

// The driver's address of GPU memory, and its context.
using Address = unsigned long long;
using Context = void*;

// Whether a stream is a GPU's and this way is open: the driver gives pinned memory for so many threads, 2 MiB each. It is
// kept until the process ends.
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

std::string name_of_error(int code);

} // namespace mlxlm::cuda
