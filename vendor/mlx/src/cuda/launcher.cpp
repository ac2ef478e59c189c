// CUDA builds only.
#include "cuda/launcher.h"

#include <functional>
#include <map>
#include <mutex>

#include "cuda/buffers.h"
#include "cuda/driver.h"
#include "mlx/version.h"

// What is used of mlx/backend/cuda/device.h, which asks for CUDA's headers.
namespace mlx::core::cu {

class CommandEncoder {
 public:
  void commit();

  // As they lie in MLX 0.32.4.
  void* device;
  void* stream;
  void* graph;
  void* worker[2];
  int node_count; // of the graph that has not been launched
};

CommandEncoder& get_command_encoder(Stream stream);

} // namespace mlx::core::cu

namespace mlxlm::cuda {

namespace {

// The kernel that MLX last put into a graph.
thread_local Function newest = nullptr;

// Memory of the first device for results of launches. It is asked for once: launches that run one after the other share it.
class Pool {
 public:
  Pool() {
    all_.reserve(most);
  }

  GpuBuffer* take(size_t size) {
    constexpr size_t least = 512;
    size = (size + least - 1) / least * least;
    std::lock_guard lock(mutex_);
    // No more than twice what is needed.
    for (auto at = free_.lower_bound(size); at != free_.end() && at->first <= 2 * size; ++at) {
      if (!at->second.empty()) {
        auto* memory = at->second.back();
        at->second.pop_back();
        return memory;
      }
    }
    return make(size);
  }

  void give_back(GpuBuffer* memory) {
    std::lock_guard lock(mutex_);
    if (memory->device == device) {
      free_[memory->size].push_back(memory);
    } else {
      // Another kind of memory took its place: that one is for who reads it on the host.
      free_memory(memory->data);
    }
  }

  bool has(const void* memory) const {
    auto* one = static_cast<const GpuBuffer*>(memory);
    bool is_own = std::greater_equal<>()(one, all_.data()) && std::less<>()(one, all_.data() + most);
    return is_own && one->device == device;
  }

 private:
  static constexpr int device = 0;
  // Pieces of memory: far more than a step needs.
  static constexpr size_t most = 8192;

  GpuBuffer* make(size_t size) {
    static int (*allocate)(Address*, size_t, void*);
    static int (*wait)(void*);
    static bool found = find_in_driver(allocate, "cuMemAllocAsync") && find_in_driver(wait, "cuStreamSynchronize");
    Address address = 0;
    // MLX may free it, which it does as it frees memory of the device's pool.
    if (!found || all_.size() == most || allocate(&address, size, nullptr) != 0 || wait(nullptr) != 0) {
      return nullptr;
    }
    return &all_.emplace_back(GpuBuffer{reinterpret_cast<void*>(address), size, device});
  }

  static void free_memory(void* data) {
    static int (*release)(Address);
    static bool found = find_in_driver(release, "cuMemFree_v2");
    // This may be a thread of MLX's that has no context.
    if (found && use_usual_context() == 0) {
      release(reinterpret_cast<Address>(data));
    }
  }

  std::mutex mutex_;
  std::map<size_t, std::vector<GpuBuffer*>> free_;
  std::vector<GpuBuffer> all_; // where these are tells that they are the pool's
};

// Never freed: arrays of a process's end come back to it.
Pool& pool() {
  static auto* made = new Pool();
  return *made;
}

class StreamLauncher : public Launcher {
 public:
  Function take_newest() override {
    return std::exchange(newest, nullptr);
  }

  std::optional<array> result(const mx::Shape& shape, mx::Dtype dtype, mx::Stream stream) override {
    static const int first = stream.index;
    if (stream.index != first) {
      return std::nullopt;
    }
    // What is larger MLX should know of: it waits where memory grows scarce.
    constexpr size_t most = 64 << 20;
    array made(shape, dtype, nullptr, {});
    auto* memory = made.nbytes() <= most ? pool().take(std::max<size_t>(1, made.nbytes())) : nullptr;
    if (!memory) {
      return std::nullopt;
    }
    auto give_back = [](mx::allocator::Buffer buffer) { pool().give_back(static_cast<GpuBuffer*>(buffer.ptr())); };
    made.set_data(mx::allocator::Data(mx::allocator::Buffer(memory), give_back));
    made.set_status(array::Status::evaluated);
    return made;
  }

  bool owns(const array& a) override {
    return pool().has(a.buffer().ptr());
  }

  void launch(const FunctionLaunch& what, mx::Stream stream) override {
    static int (*launch)(const Configuration*, Function, void**, void**);
    static bool found = find_in_driver(launch, "cuLaunchKernelEx") && use_usual_context() == 0;
    if (!found) {
      throw std::runtime_error("CUDA's driver launches no kernels");
    }
    auto& encoder = mx::cu::get_command_encoder(stream);
    bool is_behind_graph = encoder.node_count > 0;
    if (is_behind_graph) {
      encoder.commit();
    }
    auto [x, y, z] = what.blocks;
    Attribute begins_early = {.id = 6, .value = 1};
    Configuration configuration = {
        .blocks = {static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)},
        .threads = {static_cast<unsigned>(what.threads), 1, 1},
        .shared_memory = static_cast<unsigned>(what.shared_memory),
        .stream = encoder.stream,
        .attributes = &begins_early,
        .attribute_count = what.waits && !is_behind_graph ? 1u : 0u};
    check_driver(launch(&configuration, what.function, what.arguments, nullptr), "a kernel cannot be launched");
  }

 private:
  // As the driver describes a launch, and what is special about it.
  struct Attribute {
    int id;
    int padding;
    int value;
    int other_values[15];
  };
  struct Configuration {
    unsigned blocks[3];
    unsigned threads[3];
    unsigned shared_memory;
    void* stream;
    Attribute* attributes;
    unsigned attribute_count;
  };
};

#if MLX_VERSION_NUMERIC == 32004
const auto registered = launcher() = new StreamLauncher();
#endif

} // namespace

} // namespace mlxlm::cuda

// This library is searched ahead of CUDA's driver, so MLX calls this function instead. A kernel of one's own is the only kind
// that it adds by it.
extern "C" int cuGraphAddKernelNode_v2(
    void** node, void* graph, const void* dependencies, size_t count, const mlxlm::cuda::Function* kernel) {
  static int (*add)(void**, void*, const void*, size_t, const mlxlm::cuda::Function*);
  static bool found = mlxlm::cuda::find_in_driver(add, "cuGraphAddKernelNode_v2");
  constexpr int not_found = 500;
  int code = found ? add(node, graph, dependencies, count, kernel) : not_found;
  if (code == 0) {
    // A node's description begins with its function.
    mlxlm::cuda::newest = *kernel;
  }
  return code;
}
