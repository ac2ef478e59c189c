#include "cuda/staging.h"

#include <algorithm>
#include <dlfcn.h>
#include <mutex>

#include "cuda/kernel.h"

namespace mlxlm::cuda {
namespace {

constexpr size_t buffer_bytes = 1 << 20;

// What is needed of the driver, whose headers a build need not have.
struct Driver {
  int (*get_context)(Context*);
  int (*set_context)(Context);
  int (*retain_context)(Context*, int);
  int (*allocate_pinned)(void**, size_t, unsigned);
  int (*free_pinned)(void*);
  int (*make_stream)(void**, unsigned);
  int (*make_event)(void**, unsigned);
  int (*copy)(Address, const void*, size_t, void* stream);
  int (*record)(void* event, void* stream);
  int (*wait_for_event)(void* event);
  int (*wait_for_stream)(void* stream);
  int (*error_name)(int, const char**);

  // False where the driver lacks one.
  bool find() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW);
    auto symbol = [&](auto& function, const char* name) {
      function = library ? reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name)) : nullptr;
      return function != nullptr;
    };
    return symbol(get_context, "cuCtxGetCurrent") && symbol(set_context, "cuCtxSetCurrent") &&
        symbol(retain_context, "cuDevicePrimaryCtxRetain") && symbol(allocate_pinned, "cuMemHostAlloc") &&
        symbol(free_pinned, "cuMemFreeHost") && symbol(make_stream, "cuStreamCreate") &&
        symbol(make_event, "cuEventCreate") && symbol(copy, "cuMemcpyHtoDAsync_v2") &&
        symbol(record, "cuEventRecord") && symbol(wait_for_event, "cuEventSynchronize") &&
        symbol(wait_for_stream, "cuStreamSynchronize") && symbol(error_name, "cuGetErrorName");
  }
};

// What a thread copies with: one buffer is filled while the other is on its way.
struct Lane {
  void* stream = nullptr;
  char* buffers[2] = {};
  void* events[2] = {};
  int next = 0;
};

class Staging {
 public:
  explicit Staging(int threads) : lanes_(threads) {
    ready_ = driver_.find() && has_context() && std::all_of(lanes_.begin(), lanes_.end(), [this](Lane& lane) {
      return fill(lane);
    });
  }

  bool ready() const {
    return ready_;
  }

  const Driver& driver() const {
    return driver_;
  }

  int copy(
      int thread, Context context, Address to, size_t first, size_t count,
      const std::function<void(size_t, size_t, char*)>& read) {
    auto& lane = lanes_.at(thread);
    if (int code = driver_.set_context(context)) return code;
    for (size_t done = 0; done < count; done += buffer_bytes) {
      int side = lane.next;
      lane.next = 1 - side;
      size_t size = std::min(buffer_bytes, count - done);
      if (int code = driver_.wait_for_event(lane.events[side])) return code;
      read(first + done, size, lane.buffers[side]);
      if (int code = driver_.copy(to + first + done, lane.buffers[side], size, lane.stream)) return code;
      if (int code = driver_.record(lane.events[side], lane.stream)) return code;
    }
    return driver_.wait_for_stream(lane.stream);
  }

 private:
  // MLX makes its context current on the thread that it first computes on.
  bool has_context() const {
    Context context = nullptr;
    if (driver_.get_context(&context) != 0) return false;
    return context || (driver_.retain_context(&context, 0) == 0 && driver_.set_context(context) == 0);
  }

  bool fill(Lane& lane) {
    constexpr unsigned portable = 1;
    constexpr unsigned not_blocking = 1;
    constexpr unsigned no_timing = 2;
    bool made = driver_.make_stream(&lane.stream, not_blocking) == 0;
    for (int side = 0; made && side < 2; ++side) {
      void* buffer = nullptr;
      made = driver_.allocate_pinned(&buffer, buffer_bytes, portable) == 0 &&
          driver_.make_event(&lane.events[side], no_timing) == 0;
      lane.buffers[side] = static_cast<char*>(buffer);
    }
    return made;
  }

  Driver driver_ = {};
  std::vector<Lane> lanes_;
  bool ready_ = false;
};

// Never freed: at the process's end the device is gone first.
Staging& staging(int threads) {
  static auto* made = new Staging(threads);
  return *made;
}

Staging& staging() {
  return staging(0);
}

} // namespace

bool can_stage(mx::Stream stream, int threads) {
  return on_gpu(stream) && staging(threads).ready();
}

Context current_context() {
  Context context = nullptr;
  staging().driver().get_context(&context);
  return context;
}

// MLX's buffers begin with the address of their data. array::data() would move them to the host.
Address address_of(const array& a) {
  auto data = *static_cast<char* const*>(a.buffer().ptr());
  return reinterpret_cast<Address>(data) + static_cast<Address>(a.offset());
}

int stage(
    int thread, Context context, Address to, size_t first, size_t count,
    const std::function<void(size_t begin, size_t count, char* data)>& read) {
  return staging().copy(thread, context, to, first, count, read);
}

std::string name_of_error(int code) {
  const char* name = nullptr;
  staging().driver().error_name(code, &name);
  return name ? name : "error " + std::to_string(code);
}

} // namespace mlxlm::cuda
