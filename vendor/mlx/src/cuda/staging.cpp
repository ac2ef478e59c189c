#include "cuda/staging.h"

#include <algorithm>

#include "cuda/kernel.h"

namespace mlxlm::cuda {
namespace {

constexpr size_t buffer_bytes = 1 << 20;

// What is needed of the driver.
struct Driver {
  int (*get_context)(Context*);
  int (*set_context)(Context);
  int (*allocate_pinned)(void**, size_t, unsigned);
  int (*make_stream)(void**, unsigned);
  int (*make_event)(void**, unsigned);
  int (*copy)(Address, const void*, size_t, void* stream);
  int (*record)(void* event, void* stream);
  int (*wait_for_event)(void* event);
  int (*wait_for_stream)(void* stream);

  // False where it lacks one.
  bool find() {
    return find_in_driver(get_context, "cuCtxGetCurrent") && find_in_driver(set_context, "cuCtxSetCurrent") &&
        find_in_driver(allocate_pinned, "cuMemHostAlloc") && find_in_driver(make_stream, "cuStreamCreate") &&
        find_in_driver(make_event, "cuEventCreate") && find_in_driver(copy, "cuMemcpyHtoDAsync_v2") &&
        find_in_driver(record, "cuEventRecord") && find_in_driver(wait_for_event, "cuEventSynchronize") &&
        find_in_driver(wait_for_stream, "cuStreamSynchronize");
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
    ready_ = driver_.find() && use_usual_context() == 0 && make_lanes();
  }

  bool ready() const {
    return ready_;
  }

  Context context() const {
    Context current = nullptr;
    check_driver(driver_.get_context(&current), "no context");
    return current;
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
  bool make_lanes() {
    constexpr unsigned portable = 1;
    constexpr unsigned not_blocking = 1;
    constexpr unsigned no_timing = 2;
    void* pinned = nullptr;
    bool made = driver_.allocate_pinned(&pinned, 2 * buffer_bytes * lanes_.size(), portable) == 0;
    auto next = static_cast<char*>(pinned);
    for (auto& lane : lanes_) {
      made = made && driver_.make_stream(&lane.stream, not_blocking) == 0;
      for (int side = 0; made && side < 2; ++side, next += buffer_bytes) {
        lane.buffers[side] = next;
        made = driver_.make_event(&lane.events[side], no_timing) == 0;
      }
    }
    return made;
  }

  Driver driver_ = {};
  std::vector<Lane> lanes_;
  bool ready_ = false;
};

// Never freed: at the process's end the device is gone first.
Staging& staging(int threads = 0) {
  static auto* made = new Staging(threads);
  return *made;
}

} // namespace

bool can_stage(mx::Stream stream, int threads) {
  return on_gpu(stream) && staging(threads).ready();
}

Context current_context() {
  return staging().context();
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

} // namespace mlxlm::cuda
