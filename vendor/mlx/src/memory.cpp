#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <new>
#include <string>
#include <unistd.h>

#ifdef __linux__
#include <dlfcn.h>
#endif

#include "abi.h"
#include "cuda/driver.h"
#include "mlx/allocator.h"
#include "mlx/backend/cuda/cuda.h"

namespace mlxlm {
namespace {

#ifdef __linux__

// The number that follows a name in a file of lines, in the file's own unit; -1 where there is none.
int64_t field(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  std::string word;
  int64_t value = 0;
  while (file >> word) {
    if (word == name && file >> value) {
      return value;
    }
    file.ignore(256, '\n');
  }
  return -1;
}

// The one number that a file holds; -1 where there is none ("max").
int64_t number_in(const std::string& path) {
  int64_t value = 0;
  return std::ifstream(path) >> value ? value : -1;
}

// What a control group may still take; its page cache that nobody uses gives way.
int64_t left_in(int64_t limit, int64_t used, const std::string& statistics, const char* reclaimable) {
  if (limit < 0 || used < 0) {
    return -1;
  }
  return std::max<int64_t>(0, limit - used + std::max<int64_t>(0, field(statistics, reclaimable)));
}

int64_t smaller(int64_t a, int64_t b) {
  return a < 0 ? b : b < 0 ? a : std::min(a, b);
}

// The path of the process's control group, by the controllers that its line names ("" in version 2).
std::string group_of(const std::string& controllers) {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    auto end = line.find(':', line.find(':') + 1);
    auto start = line.find(':') + 1;
    if (end != std::string::npos && line.substr(start, end - start) == controllers) {
      return line.substr(end + 1);
    }
  }
  return "";
}

int64_t left_in_groups() {
  // Version 1. A container sees its own group at the root, under a path that only the host has.
  int64_t left = -1;
  for (auto path : {group_of("memory"), std::string()}) {
    auto group = "/sys/fs/cgroup/memory" + path;
    auto statistics = group + "/memory.stat";
    auto used = number_in(group + "/memory.usage_in_bytes");
    left = smaller(left, left_in(field(statistics, "hierarchical_memory_limit"), used, statistics, "total_inactive_file"));
  }
  // Version 2, where each group above limits too.
  for (auto path = group_of("");; path.resize(path.rfind('/'))) {
    auto group = "/sys/fs/cgroup" + (path == "/" ? "" : path);
    auto used = number_in(group + "/memory.current");
    left = smaller(left, left_in(number_in(group + "/memory.max"), used, group + "/memory.stat", "inactive_file"));
    if (path.empty()) {
      return left;
    }
  }
}

#endif

std::string in_words(size_t bytes) {
  char text[32];
  bool giga = bytes >= 1'000'000'000;
  std::snprintf(text, sizeof(text), giga ? "%.1f GB" : "%.1f MB", static_cast<double>(bytes) / (giga ? 1e9 : 1e6));
  return text;
}

// What fails where nobody can catch it, on a thread of MLX's or of a kernel's, ends the process in words.
void end_in_words() {
  std::string text = "mlxlm: internal error: the native library gave up\n";
  bool memory = false;
  try {
    if (auto error = std::current_exception()) {
      std::rethrow_exception(error);
    }
  } catch (const std::bad_alloc&) {
    memory = true;
    text = "mlxlm: out of memory\n";
  } catch (const std::exception& error) {
    memory = std::strstr(error.what(), "unable to allocate") != nullptr;
    text = std::string(memory ? "mlxlm: out of memory: " : "mlxlm: internal error: ") + error.what() + "\n";
  } catch (...) {
  }
  if (write(STDERR_FILENO, text.data(), text.size()) < 0) {
    std::abort();
  }
  // 5: src/errors.ts, `resources`.
  memory ? _exit(5) : std::abort();
}

[[maybe_unused]] const auto previous = std::set_terminate(end_in_words);

} // namespace

int64_t available_memory() {
#ifdef __linux__
  int64_t machine = field("/proc/meminfo", "MemAvailable:");
  if (machine < 0) {
    return left_in_groups();
  }
  int64_t swap = std::max<int64_t>(0, field("/proc/meminfo", "SwapFree:"));
  return smaller((machine + swap) * 1024, left_in_groups());
#else
  return -1;
#endif
}

} // namespace mlxlm

#ifdef __linux__

namespace mlxlm {
namespace {

namespace allocation = mx::allocator;

// From this size on, what is left is looked up first: Linux promises memory that it does not have, and ends a process
// that uses it.
constexpr size_t large = size_t{64} << 20;

// MLX's allocator for CPUs hands on what std::malloc returns, null too, and writes there.
class CheckedAllocator : public allocation::Allocator {
 public:
  explicit CheckedAllocator(allocation::Allocator& under) : under_(under) {}

  allocation::Buffer malloc(size_t size) override {
    if (size >= large) {
      int64_t left = available_memory();
      if (left >= 0 && size > static_cast<size_t>(left)) {
        fail(size, ": " + in_words(static_cast<size_t>(left)) + " are free");
      }
    }
    auto buffer = under_.malloc(size);
    if (size > 0 && !buffer.ptr()) {
      fail(size, "");
    }
    return buffer;
  }
  void free(allocation::Buffer buffer) override {
    under_.free(buffer);
  }
  size_t size(allocation::Buffer buffer) const override {
    return under_.size(buffer);
  }
  allocation::Buffer make_buffer(void* data, size_t size) override {
    return under_.make_buffer(data, size);
  }
  void release(allocation::Buffer buffer) override {
    under_.release(buffer);
  }

 private:
  [[noreturn]] static void fail(size_t size, const std::string& why) {
    throw std::runtime_error("unable to allocate " + in_words(size) + " of memory" + why);
  }

  allocation::Allocator& under_;
};

allocation::Allocator& chosen_allocator() {
  auto name = "_ZN3mlx4core9allocator9allocatorEv";
  auto mlx = reinterpret_cast<allocation::Allocator& (*)()>(dlsym(RTLD_NEXT, name));
  if (!mlx) {
    throw std::runtime_error("libmlx has no allocator");
  }
  if (mx::cu::is_available()) {
    cuda::keep_freed_memory();
    return mlx(); // says itself what it can't get
  }
  return *new CheckedAllocator(mlx());
}

} // namespace
} // namespace mlxlm

// libmlx finds this function in place of its own: a symbol of the library that was opened comes before those of the
// libraries that it needs.
mlx::core::allocator::Allocator& mlx::core::allocator::allocator() {
  static auto& chosen = mlxlm::chosen_allocator();
  return chosen;
}

#endif

extern "C" {

double mlxlm_available_memory() {
  return static_cast<double>(mlxlm::available_memory());
}

} // extern "C"
