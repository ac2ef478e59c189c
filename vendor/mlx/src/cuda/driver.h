// CUDA's driver, whose headers a build need not have: functions by their names, from the library that MLX has loaded.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

namespace mlxlm::cuda {

using Address = unsigned long long;

// Null where there is no driver, or it lacks the function.
void* driver_symbol(const char* name);

// Sets a pointer to a function. False where it is not there.
template <class F>
bool find_in_driver(F*& function, const char* name) {
  function = reinterpret_cast<F*>(driver_symbol(name));
  return function != nullptr;
}

// Throws std::runtime_error with the driver's name for the error.
void check_driver(int code, const char* what);

// Has this thread the first device's context, where it has none: MLX makes it current on the thread that it first computes on. 0,
// or the driver's error.
int use_usual_context();

// The first device's memory pool keeps what was freed, instead of giving it back whenever the GPU has nothing to do: to get
// a prompt's memory from the system anew takes as long as the prompt. Nothing where there is no such pool.
void keep_freed_memory();

// Gives back what that pool does not use.
void return_freed_memory();

} // namespace mlxlm::cuda
