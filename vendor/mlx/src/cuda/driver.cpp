#include "cuda/driver.h"

#include <dlfcn.h>
#include <optional>
#include <stdexcept>

namespace mlxlm::cuda {

namespace {

using Pool = void*;

// The pool that MLX allocates from.
std::optional<Pool> usual_pool() {
  static int (*initialize)(unsigned);
  static int (*get_device)(int*, int);
  static int (*get_pool)(Pool*, int);
  static bool found = find_in_driver(initialize, "cuInit") && find_in_driver(get_device, "cuDeviceGet") &&
      find_in_driver(get_pool, "cuDeviceGetDefaultMemPool");
  int device = 0;
  Pool pool = nullptr;
  bool has_pool = found && initialize(0) == 0 && get_device(&device, 0) == 0 && get_pool(&pool, device) == 0;
  return has_pool ? std::optional(pool) : std::nullopt;
}

} // namespace

void* driver_symbol(const char* name) {
  static void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  return library ? dlsym(library, name) : nullptr;
}

void check_driver(int code, const char* what) {
  if (code == 0) {
    return;
  }
  static int (*error_name)(int, const char**);
  static bool found = find_in_driver(error_name, "cuGetErrorName");
  const char* name = nullptr;
  if (found) {
    error_name(code, &name);
  }
  throw std::runtime_error(std::string(what) + ": " + (name ? name : "error " + std::to_string(code)));
}

int use_usual_context() {
  constexpr int not_found = 500;
  static int (*get)(void**);
  static int (*set)(void*);
  static int (*retain)(void**, int);
  static bool found = find_in_driver(get, "cuCtxGetCurrent") && find_in_driver(set, "cuCtxSetCurrent") &&
      find_in_driver(retain, "cuDevicePrimaryCtxRetain");
  if (!found) {
    return not_found;
  }
  void* context = nullptr;
  if (int code = get(&context)) return code;
  if (context) return 0;
  if (int code = retain(&context, 0)) return code;
  return set(context);
}

void keep_freed_memory() {
  constexpr int release_threshold = 4;
  static int (*set)(Pool, int, void*);
  static bool found = find_in_driver(set, "cuMemPoolSetAttribute");
  auto pool = found ? usual_pool() : std::nullopt;
  if (pool) {
    uint64_t all = UINT64_MAX;
    set(*pool, release_threshold, &all);
  }
}

void return_freed_memory() {
  static int (*trim)(Pool, size_t);
  static bool found = find_in_driver(trim, "cuMemPoolTrimTo");
  auto pool = found ? usual_pool() : std::nullopt;
  if (pool) {
    trim(*pool, 0);
  }
}

} // namespace mlxlm::cuda
