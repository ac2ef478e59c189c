// CUDA builds only.
#include "cuda/launcher.h"

#include <deque>
#include <functional>
#include <map>
#include <mutex>

#include "cuda/buffers.h"
#include "cuda/driver.h"

// CUDA's own type, by the name that MLX's functions have it in theirs.
struct dim3 {
  unsigned x;
  unsigned y;
  unsigned z;
};

// What is used of mlx/backend/cuda/device.h, which asks for CUDA's headers.
namespace mlx::core::cu {

class CommandEncoder {
 public:
  void set_input_array(const array& a);
  void set_output_array(const array& a);
  void add_kernel_node_raw(
      CUfunc_st* function, dim3 blocks, dim3 threads, dim3 cluster, uint32_t shared_memory, void** arguments);
};

CommandEncoder& get_command_encoder(Stream stream);

} // namespace mlx::core::cu

namespace mlxlm::cuda {

namespace {

// The node of a kernel in one of MLX's graphs.
struct Node {
  Function function = nullptr;
  void* graph = nullptr;
  void* node = nullptr;
};

thread_local Node newest;

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
    // No more than twice what is needed, and of a size what was given back first.
    for (auto at = free_.lower_bound(size); at != free_.end() && at->first <= 2 * size; ++at) {
      auto& waiting = at->second;
      if (!waiting.empty() && waiting.front().given_back + apart <= launches_) {
        auto* memory = waiting.front().memory;
        waiting.pop_front();
        return memory;
      }
    }
    return make(size);
  }

  void give_back(GpuBuffer* memory) {
    std::lock_guard lock(mutex_);
    if (memory->device == device) {
      free_[memory->size].push_back({memory, launches_});
    } else {
      // Another kind of memory took its place: that one is for who reads it on the host.
      free_memory(memory->data);
    }
  }

  void count_launch() {
    std::lock_guard lock(mutex_);
    ++launches_;
  }

  bool has(const void* memory) const {
    auto* one = static_cast<const GpuBuffer*>(memory);
    return std::greater_equal<>()(one, all_.data()) && std::less<>()(one, all_.data() + most);
  }

 private:
  static constexpr int device = 0;
  // Pieces of memory: far more than a step needs.
  static constexpr size_t most = 8192;
  // Launches between two uses, more than a CUDA graph usually has. In one graph the second would come behind the first, but which two these
  // are differs from step to step, and MLX makes a graph anew where it is not built as one before.
  static constexpr int64_t apart = 128;

  struct Free {
    GpuBuffer* memory;
    int64_t given_back; // at this launch
  };

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
  std::map<size_t, std::deque<Free>> free_;
  std::vector<GpuBuffer> all_; // where these are tells that they are the pool's
  int64_t launches_ = 0;
};

// Never freed: arrays of a process's end come back to it.
Pool& pool() {
  static auto* made = new Pool();
  return *made;
}

class GraphLauncher : public Launcher {
 public:
  Function take_newest() override {
    return std::exchange(newest.function, nullptr);
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

  void launch(
      const FunctionLaunch& what, const std::vector<array>& inputs, const std::vector<array>& outputs, mx::Stream stream,
      bool in_row) override {
    auto& encoder = mx::cu::get_command_encoder(stream);
    auto before = std::exchange(last_, {});
    // MLX would have this kernel begin when the one before has ended. So MLX is not told of what that one gives, and the edge is ours.
    bool overlaps = in_row && what.waits && before.node && add_edges();
    for (auto& input : inputs) {
      if (!overlaps || !owns(input)) {
        encoder.set_input_array(input);
      }
    }
    if (!overlaps) {
      encoder.set_input_array(place(launches_));
    }
    for (auto& output : outputs) {
      encoder.set_output_array(output);
    }
    encoder.set_output_array(place(++launches_));
    auto [x, y, z] = what.blocks;
    dim3 blocks = {static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)};
    dim3 threads = {static_cast<unsigned>(what.threads), 1, 1};
    pool().count_launch();
    newest = {};
    encoder.add_kernel_node_raw(what.function, blocks, threads, {1, 1, 1}, what.shared_memory, what.arguments);
    last_ = std::exchange(newest, {});
    if (overlaps) {
      constexpr Edge begins_early = {1, 0, 1, {}};
      check_driver(
          add_edges()(last_.graph, &before.node, &last_.node, &begins_early, 1), "kernels cannot run one behind the other");
    }
  }

 private:
  // As the driver describes an edge: where it leaves a kernel, where it comes in, and its kind.
  struct Edge {
    unsigned char from;
    unsigned char to;
    unsigned char kind;
    unsigned char reserved[5];
  };
  using AddEdges = int (*)(void* graph, void* const* from, void* const* to, const Edge* edges, size_t count);

  // Null where the driver has no such function.
  static AddEdges add_edges() {
    static AddEdges add;
    static bool found = find_in_driver(add, "cuGraphAddDependencies_v2");
    return found ? add : nullptr;
  }

  // A launch is said to write its own place, and the next one to read it, which orders them. There are more places than a graph has nodes.
  static const array& place(size_t launch) {
    constexpr size_t places = 1024;
    static const auto* made = [] {
      auto* nothing = new GpuBuffer[places]{};
      auto* all = new std::vector<array>();
      for (size_t i = 0; i < places; ++i) {
        auto& a = all->emplace_back(mx::Shape{0}, mx::uint8, nullptr, std::vector<array>{});
        a.set_data(mx::allocator::Data(mx::allocator::Buffer(&nothing[i]), [](mx::allocator::Buffer) {}));
      }
      return all;
    }();
    return (*made)[launch % places];
  }

  Node last_; // of the newest launch
  size_t launches_ = 0;
};

const auto registered = launcher() = new GraphLauncher();

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
    mlxlm::cuda::newest = {*kernel, graph, *node};
  }
  return code;
}
