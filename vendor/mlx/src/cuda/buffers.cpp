#include "cuda/buffers.h"

#include <bit>
#include <cstring>
#include <map>
#include <mutex>

#include "cuda/driver.h"
#include "mlx/backend/cuda/cuda.h"

namespace mlxlm::cuda {

namespace {

GpuBuffer& buffer_of(const array& a) {
  return *static_cast<GpuBuffer*>(const_cast<void*>(a.buffer().ptr()));
}

// Small pieces of memory that does not move, by size.
class PinnedMemory {
 public:
  static constexpr size_t most = 256 << 10;

  // Null where the driver gives none.
  GpuBuffer* take(size_t bytes) {
    constexpr size_t least = 64;
    size_t size = std::max(least, std::bit_ceil(bytes));
    std::lock_guard lock(mutex_);
    auto& free = free_[size];
    if (free.empty() && !add_pieces(size, free)) {
      return nullptr;
    }
    auto* piece = free.back();
    free.pop_back();
    return piece;
  }

  void give_back(GpuBuffer* piece) {
    std::lock_guard lock(mutex_);
    free_[piece->size].push_back(piece);
  }

 private:
  static bool add_pieces(size_t size, std::vector<GpuBuffer*>& free) {
    size_t together = std::max<size_t>(size, 64 << 10);
    static int (*allocate)(void**, size_t);
    static const bool found = find_in_driver(allocate, "cuMemAllocHost_v2");
    void* memory = nullptr;
    if (!found || use_usual_context() != 0 || allocate(&memory, together) != 0) {
      return false;
    }
    for (size_t at = 0; at < together; at += size) {
      free.push_back(new GpuBuffer{static_cast<char*>(memory) + at, size, -1});
    }
    return true;
  }

  std::mutex mutex_;
  std::map<size_t, std::vector<GpuBuffer*>> free_;
};

// Never freed: arrays of a process's end come back to it.
PinnedMemory& pinned_memory() {
  static auto* made = new PinnedMemory();
  return *made;
}

// Copies from a GPU to the host, beside what the GPU computes.
class Copies {
 public:
  Copies() {
    constexpr unsigned beside_others = 1;
    int (*create)(void**, unsigned) = nullptr;
    bool found = find_in_driver(create, "cuStreamCreate") && find_in_driver(copy_, "cuMemcpyDtoHAsync_v2") &&
        find_in_driver(wait_, "cuStreamSynchronize");
    usable_ = found && use_usual_context() == 0 && create(&stream_, beside_others) == 0;
  }

  bool operator()(void* to, const void* from, size_t bytes) {
    if (!usable_ || use_usual_context() != 0) {
      return false;
    }
    check_driver(copy_(to, reinterpret_cast<Address>(from), bytes, stream_), "what a GPU computed cannot be read");
    check_driver(wait_(stream_), "what a GPU computed cannot be read");
    return true;
  }

 private:
  int (*copy_)(void*, Address, size_t, void*);
  int (*wait_)(void*);
  void* stream_ = nullptr;
  bool usable_;
};

} // namespace

void* gpu_address(const array& a) {
  return static_cast<char*>(buffer_of(a).data) + a.offset();
}

std::optional<array> pinned_array(const mx::Shape& shape, mx::Dtype dtype) {
  static const bool available = mx::cu::is_available();
  array made(shape, dtype, nullptr, {});
  bool fits = available && made.nbytes() > 0 && made.nbytes() <= PinnedMemory::most;
  auto* piece = fits ? pinned_memory().take(made.nbytes()) : nullptr;
  if (!piece) {
    return std::nullopt;
  }
  auto give_back = [](mx::allocator::Buffer buffer) { pinned_memory().give_back(static_cast<GpuBuffer*>(buffer.ptr())); };
  made.set_data(mx::allocator::Data(mx::allocator::Buffer(piece), give_back));
  made.set_status(array::Status::available);
  return made;
}

void copy_to_host(const array& a, void* destination, size_t first, size_t count) {
  static const bool available = mx::cu::is_available();
  size_t skipped = first * a.itemsize();
  size_t bytes = count * a.itemsize();
  if (available && bytes > 0 && buffer_of(a).device >= 0) {
    static auto* copies = new Copies();
    if ((*copies)(destination, static_cast<char*>(gpu_address(a)) + skipped, bytes)) {
      return;
    }
  }
  std::memcpy(destination, a.data<char>() + skipped, bytes);
}

void copy_to_host(const array& a, void* destination) {
  copy_to_host(a, destination, 0, a.size());
}

} // namespace mlxlm::cuda
