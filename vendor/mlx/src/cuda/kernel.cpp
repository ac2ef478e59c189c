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

// A kernel's arguments, as MLX's own operation gives them. They are on the stack: to allocate memory for them would take longer than to fill it.
class Arguments {
 public:
  // Whether there is room for them.
  static bool fit(const std::vector<Described>& inputs, size_t outputs) {
    size_t count = inputs.size() + outputs;
    for (auto& [shape, strides, ndim] : inputs) {
      count += shape + strides + ndim;
    }
    return count <= most;
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

  static constexpr size_t most = 64;
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

KernelFacts::KernelFacts(const std::string& text, const std::vector<std::string>& names, Reads how, int bytes)
    : waits(text.find(MLXLM_BEHIND_LAUNCH) != std::string::npos), reads(how), shared_memory(bytes) {
  auto asks_for = [&](const std::string& what) { return text.find(what) != std::string::npos; };
  for (auto& name : names) {
    inputs.push_back({asks_for(name + "_shape"), asks_for(name + "_strides"), asks_for(name + "_ndim")});
  }
}

MadeKernel::MadeKernel(
    std::shared_ptr<mx::Primitive> operation, KernelFacts facts, std::tuple<int, int, int> blocks, int threads)
    : operation_(std::move(operation)), facts_(std::move(facts)), blocks_(blocks), threads_(threads) {
  places_of_functions().emplace(operation_.get(), &function_);
}

std::vector<array> MadeKernel::operator()(
    const std::vector<array>& inputs, const std::vector<mx::Shape>& shapes, const std::vector<mx::Dtype>& dtypes) const {
  auto results = launch_now(inputs, shapes, dtypes);
  return results ? *std::move(results) : array::make_arrays(shapes, dtypes, operation_, inputs);
}

std::optional<std::vector<array>> MadeKernel::launch_now(
    const std::vector<array>& inputs, const std::vector<mx::Shape>& shapes, const std::vector<mx::Dtype>& dtypes) const {
  auto* turn = Turn::current();
  if (!turn || !function_ || !Arguments::fit(facts_.inputs, shapes.size())) {
    return std::nullopt;
  }
  Arguments arguments;
  for (size_t i = 0; i < inputs.size(); ++i) {
    auto input = inputs[i];
    turn->compute(input);
    if (facts_.reads == Reads::copies && !input.flags().row_contiguous) {
      return std::nullopt;
    }
    arguments.add(input, facts_.inputs[i]);
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
  turn->launch({function_, blocks_, threads_, facts_.shared_memory, arguments.places(), facts_.waits}, inputs);
  return results;
}

Kernel::Kernel(
    std::string name, std::vector<std::string> inputs, std::vector<std::string> outputs, const char* source, std::string header,
    int shared_memory, Reads reads)
    : make_(mx::fast::cuda_kernel(
          name, inputs, outputs, source, named_text(header), reads == Reads::copies, shared_memory)),
      facts_(source, inputs, reads, shared_memory) {}

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
    return known->second(inputs, shapes, dtypes);
  }
  std::vector<std::pair<std::string, mx::fast::TemplateArg>> arguments = {
      {"T", inputs[0].dtype()}, {"Out", dtypes[0]}};
  for (auto& [name, value] : launch.constants) {
    arguments.emplace_back(name, value);
  }
  auto results = make_(
      inputs, shapes, dtypes, {x * launch.threads, y, z}, {launch.threads, 1, 1}, arguments, std::nullopt, false,
      stream);
  made_.try_emplace(std::move(key), results[0].primitive_ptr(), facts_, launch.blocks, launch.threads);
  return results;
}

bool Kernel::will_make(const array& a) const {
  return a.status() == array::Status::unscheduled && a.has_primitive() &&
      std::any_of(made_.begin(), made_.end(), [&](auto& made) { return made.second.makes(a); });
}

} // namespace mlxlm::cuda
