// What our CUDA kernels are launched by, and what each of them asks about its arguments.
#pragma once

#include <bit>
#include <map>
#include <string_view>

#include "abi.h"
#include "cuda/launcher.h"

namespace mlxlm::cuda {

// A CUDA stream, and MLXLM_CUDA_KERNELS is not 0, which leaves everything to MLX.
bool on_gpu(mx::StreamOrDevice s);

template <class... Arrays>
bool traced(const Arrays&... arrays) {
  return (arrays.is_tracer() || ...);
}

inline bool is_half(mx::Dtype dtype) {
  return dtype == mx::bfloat16 || dtype == mx::float16;
}

// Floats travel as template integers.
inline int bits_of(float value) {
  return std::bit_cast<int>(value);
}

struct Launch {
  std::tuple<int, int, int> blocks;
  int threads;
  std::vector<std::pair<std::string_view, int>> constants; // names outlive the call
};

// What a kernel is told of an input beside its place, as its text asks for it.
struct Described {
  bool shape;
  bool strides;
  bool ndim;
};

// Whether inputs that do not lie in rows are copied, or the kernel reads them, and may write to them, where they lie.
enum class Reads { copies, in_place };

// What a kernel's launches have in common, whatever its constants.
struct KernelFacts {
  std::vector<Described> inputs;
  bool waits; // for the launch before it, by itself
  Reads reads;
  int shared_memory;

  KernelFacts(const std::string& text, const std::vector<std::string>& inputs, Reads reads, int shared_memory);
};

// A kernel with its constants and the size of its launch: MLX's operation for it, and the function that this has been compiled to, once that is
// known. It is never moved: its place is remembered.
class MadeKernel {
 public:
  MadeKernel(std::shared_ptr<mx::Primitive> operation, KernelFacts facts, std::tuple<int, int, int> blocks, int threads);
  MadeKernel(const MadeKernel&) = delete;

  // Where an operation has its turn the kernel is launched here and now, if MLX has launched it in a turn before.
  std::vector<array> operator()(
      const std::vector<array>& inputs, const std::vector<mx::Shape>& shapes, const std::vector<mx::Dtype>& dtypes) const;

  bool makes(const array& a) const {
    return a.primitive_ptr() == operation_;
  }

 private:
  std::optional<std::vector<array>> launch_now(
      const std::vector<array>& inputs, const std::vector<mx::Shape>& shapes, const std::vector<mx::Dtype>& dtypes) const;

  std::shared_ptr<mx::Primitive> operation_;
  Function function_ = nullptr;
  KernelFacts facts_;
  std::tuple<int, int, int> blocks_;
  int threads_;
};

// Ahead of a kernel's text: how many threads it has, and how many of its blocks a multiprocessor should have room for. MLX says neither,
// so that the compiler takes more registers than that leaves.
std::string launch_bounds(int threads, int blocks);

// A kernel whose source is put together once for each set of constants. MLX would do that anew in every call, which
// takes longer than all else on the host's side; the primitive that comes of it is the same each time.
class Kernel {
 public:
  Kernel(
      std::string name, std::vector<std::string> inputs, std::vector<std::string> outputs, const char* source,
      std::string header = "", int shared_memory = 0, Reads reads = Reads::copies);

  // The source knows the first input's dtype as T, and the first output's as Out.
  std::vector<array> operator()(
      const std::vector<array>& inputs, const std::vector<mx::Shape>& shapes, const std::vector<mx::Dtype>& dtypes,
      const Launch& launch, mx::StreamOrDevice s);

  // Outputs of the first input's dtype.
  std::vector<array> operator()(
      const std::vector<array>& inputs, const std::vector<mx::Shape>& shapes, const Launch& launch,
      mx::StreamOrDevice s) {
    return (*this)(inputs, shapes, std::vector<mx::Dtype>(shapes.size(), inputs[0].dtype()), launch, s);
  }

  // Whether this array is a result of the kernel that nobody has asked to be computed.
  bool will_make(const array& a) const;

 private:
  mx::fast::CustomKernelFunction make_;
  KernelFacts facts_;
  std::map<std::vector<int>, MadeKernel> made_;
};

// What MLX loaded a kernel as, told by the operation that launches it. Nothing happens where that is not one of these kernels.
void remember_function(const mx::Primitive& operation, Function function);

} // namespace mlxlm::cuda
