#include "cuda/kernel.h"

#include <algorithm>
#include <unordered_map>

#include "cuda/buffers.h"
#include "cuda/kernel_texts.h"
#include "cuda/overlap_sources.h"
#include "cuda/turn.h"
#include "environment.h"
#include "mlx/backend/cuda/cuda.h"

namespace mlxlm::cuda {

bool on_gpu(mx::StreamOrDevice s) {
  static const bool wanted = mx::cu::is_available() && environment("MLXLM_CUDA_KERNELS") != "0";
  return wanted && mx::to_stream(s).device == mx::Device::gpu;
}

std::string launch_bounds(int threads, int blocks) {
  return "#undef __global__\n#define __global__ __attribute__((global)) __launch_bounds__(" + std::to_string(threads) +
      ", " + std::to_string(blocks) + ")\n";
}

namespace {

// Where the function of an operation's kernel is kept. Such operations live as long as the process.
std::unordered_map<const mx::Primitive*, Function*>& places_of_functions() {
  static auto* made = new std::unordered_map<const mx::Primitive*, Function*>();
  return *made;
}

// A kernel's arguments, as MLX's own operation gives them. They are on the stack: memory for them would take longer than to fill it.
class Arguments {
 public:
  // Whether there is room for so many arrays. Of a kernel that is told of its axes an input needs four arguments.
  static constexpr bool fit(size_t arrays) {
    return 4 * arrays <= most;
  }

  void add(const array& a, const Described& described) {
    add(gpu_address(a));
    if (described.shape) {
      add_axes<int32_t>(a.shape());
    }
    if (described.strides) {
      add_axes<int64_t>(a.strides());
    }
    if (described.ndim) {
      next().count = static_cast<int32_t>(a.ndim());
    }
  }
  void add(void* address) {
    next().address = address;
  }

  void** places() {
    return places_;
  }

 private:
  // As many as MLX's kernels are told of.
  static constexpr size_t most_axes = 10;

  union Value {
    void* address;
    int32_t count;
    char axes[most_axes * sizeof(int64_t)];
  };

  Value& next() {
    places_[count_] = &values_[count_];
    return values_[count_++];
  }

  template <class T, class Axes>
  void add_axes(const Axes& axes) {
    auto* to = reinterpret_cast<T*>(next().axes);
    std::fill_n(to, most_axes, T(0));
    std::copy_n(axes.begin(), std::min(axes.size(), most_axes), to);
  }

  static constexpr size_t most = 96;
  Value values_[most];
  void* places_[most];
  size_t count_ = 0;
};

} // namespace

void remember_function(const mx::Primitive& operation, Function function) {
  auto& places = places_of_functions();
  auto place = places.find(&operation);
  if (place != places.end()) {
    *place->second = function;
  }
}

Kernel::Kernel(
    std::string name, std::vector<std::string> inputs, std::vector<std::string> outputs, const char* source, std::string header,
    int shared_memory, Reads reads)
    : make_(mx::fast::cuda_kernel(
          name, inputs, outputs, source, named_text(header), reads == Reads::copies, shared_memory)),
      shared_memory_(shared_memory),
      reads_(reads) {
  std::string text = source;
  auto names = [&](const std::string& what) { return text.find(what) != std::string::npos; };
  waits_ = names(MLXLM_BEHIND_LAUNCH);
  for (auto& input : inputs) {
    described_.push_back({names(input + "_shape"), names(input + "_strides"), names(input + "_ndim")});
  }
}

std::vector<array> Kernel::operator()(
    const std::vector<array>& inputs, const std::vector<mx::Shape>& shapes, const std::vector<mx::Dtype>& dtypes,
    const Launch& launch, mx::StreamOrDevice s) {
  auto stream = mx::to_stream(s);
  auto [x, y, z] = launch.blocks;
  std::vector<int> key;
  key.reserve(6 + dtypes.size() + launch.constants.size());
  key.insert(key.end(), {stream.index, static_cast<int>(inputs[0].dtype().val()), x, y, z, launch.threads});
  for (auto dtype : dtypes) {
    key.push_back(static_cast<int>(dtype.val()));
  }
  for (const auto& [_, value] : launch.constants) {
    key.push_back(value);
  }
  auto known = made_.find(key);
  if (known != made_.end()) {
    auto results = launch_now(known->second, inputs, shapes, dtypes, launch);
    return results ? *std::move(results) : array::make_arrays(shapes, dtypes, known->second.primitive, inputs);
  }
  std::vector<std::pair<std::string, mx::fast::TemplateArg>> arguments = {
      {"T", inputs[0].dtype()}, {"Out", dtypes[0]}};
  for (auto& [name, value] : launch.constants) {
    arguments.emplace_back(name, value);
  }
  auto results = make_(
      inputs, shapes, dtypes, {x * launch.threads, y, z}, {launch.threads, 1, 1}, arguments, std::nullopt, false,
      stream);
  auto& made = made_.emplace(std::move(key), Made{results[0].primitive_ptr()}).first->second;
  places_of_functions().emplace(made.primitive.get(), &made.function);
  return results;
}

std::optional<std::vector<array>> Kernel::launch_now(
    const Made& made, const std::vector<array>& inputs, const std::vector<mx::Shape>& shapes,
    const std::vector<mx::Dtype>& dtypes, const Launch& launch) const {
  auto* turn = Turn::current();
  if (!turn || !made.function || !Arguments::fit(inputs.size() + shapes.size())) {
    return std::nullopt;
  }
  Arguments arguments;
  for (size_t i = 0; i < inputs.size(); ++i) {
    auto input = inputs[i];
    turn->compute(input);
    if (reads_ == Reads::copies && !input.flags().row_contiguous) {
      return std::nullopt;
    }
    arguments.add(input, described_[i]);
  }
  std::vector<array> results;
  for (size_t i = 0; i < shapes.size(); ++i) {
    auto result = turn->result(shapes[i], dtypes[i]);
    if (!result) {
      return std::nullopt;
    }
    arguments.add(gpu_address(*result));
    results.push_back(*std::move(result));
  }
  turn->launch({made.function, launch.blocks, launch.threads, shared_memory_, arguments.places(), waits_}, inputs, results);
  return results;
}

bool Kernel::will_make(const array& a) const {
  return a.status() == array::Status::unscheduled && a.has_primitive() &&
      std::any_of(made_.begin(), made_.end(), [&](auto& made) { return made.second.primitive == a.primitive_ptr(); });
}

} // namespace mlxlm::cuda
