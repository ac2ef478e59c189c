// The threads that CPU kernels share. One parallel loop runs at a time; the thread that asks for it works along.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlxlm::cpu {

// How many threads a parallel loop uses, the caller's included: MLXLM_THREADS, else as many as the process may run on
// (its affinity, its container's CPU quota).
int thread_count();

// Calls body(context, i) for every i in [0, count), on several threads, in no particular order, and returns when all
// are done. Each thread takes the next i as it becomes free, so an i should be worth some microseconds. The body must
// not throw. A loop that is asked for while another runs (two streams, or from within a body) runs on its caller alone.
void parallel_for(int64_t count, void (*body)(void* context, int64_t i), void* context);

template <class Body>
void parallel_for(int64_t count, const Body& body) {
  auto call = [](void* context, int64_t i) { (*static_cast<const Body*>(context))(i); };
  parallel_for(count, call, const_cast<Body*>(&body));
}

// The same for a loop of so many multiplications in all: on its caller alone where waking the others would take longer.
template <class Body>
void loop(int64_t multiplications, int64_t count, const Body& body) {
  if (multiplications >= 1 << 16) {
    return parallel_for(count, body);
  }
  for (int64_t i = 0; i < count; ++i) {
    body(i);
  }
}

// Memory of the calling thread for one kernel's intermediate results, 64-byte aligned, valid until the next call with
// the same slot. Bodies of loops use slot 0, those who start loops slot 1, those who start several with something kept
// between them slot 2.
void* scratch(int slot, size_t bytes);

} // namespace mlxlm::cpu
