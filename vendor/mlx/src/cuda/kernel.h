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

// Ahead of a kernel's text: how many threads it has, and how many of its blocks a multiprocessor should have room for. MLX says neither,
// so that the compiler takes more registers than that leaves.
std::string launch_bounds(int threads, int blocks);

// A kernel whose source is put together once for each set of constants. MLX would do that anew in every call, which
// takes longer than all else on the host's side; the primitive that comes of it is the same each time.
class Kernel {
 public:
  // Whether inputs that do not lie in rows are copied, or the kernel reads them, and may write to them, where they lie.
  enum class Reads { copies, in_place };

  Kernel(
      std::string name, std::vector<std::string> inputs, std::vector<std::string> outputs, const char* source,
      std::string header = "", int shared_memory = 0, Reads reads = Reads::copies);

  // The source knows the first input's dtype as T, and the first output's as Out. Where an operation has its turn the kernel is
  // launched here and now, if MLX has launched it before.
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
  struct Made {
    std::shared_ptr<mx::Primitive> primitive;
    Function function = nullptr; // once it is known
  };

  std::optional<std::vector<array>> launch_now(
      const Made& made, const std::vector<array>& inputs, const std::vector<mx::Shape>& shapes,
      const std::vector<mx::Dtype>& dtypes, const Launch& launch) const;

  mx::fast::CustomKernelFunction make_;
  std::map<std::vector<int>, Made> made_;
  int shared_memory_;
  Reads reads_;
  bool waits_; // for the launch before it, by itself
  std::vector<Described> described_; // by input
};

// What MLX loaded a kernel as, told by the operation that launches it. Nothing happens where that is not one of these kernels.
void remember_function(const mx::Primitive& operation, Function function);

} // namespace mlxlm::cuda
