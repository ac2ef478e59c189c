// Kernels launched on MLX's stream by the functions that MLX loaded them as. Its own operation for such a kernel puts the kernel's
// text and name together in every call, and the kernel into a CUDA graph: both take longer than the launch.
#pragma once

#include "abi.h"

struct CUfunc_st;

namespace mlxlm::cuda {

using Function = CUfunc_st*;

// A kernel's arguments as the driver takes them: where each of them is.
struct FunctionLaunch {
  Function function;
  std::tuple<int, int, int> blocks;
  int threads;
  int shared_memory;
  void** arguments;
  bool waits; // the kernel itself waits for the launch before it
};

class Launcher {
 public:
  virtual ~Launcher() = default;

  // The function of the kernel that MLX last put into a graph on this thread since this was asked; null where there was none.
  virtual Function take_newest() = 0;

  // An array in memory of the GPU that goes back to this launcher; nothing where the GPU has none left, for much of it, or for a
  // second stream. What one launch no longer needs is given to the next: each comes behind those before it, or waits for them.
  virtual std::optional<array> result(const mx::Shape& shape, mx::Dtype dtype, mx::Stream stream) = 0;

  // Whether its memory goes back to this launcher, so that it need not be kept until launches have run.
  virtual bool owns(const array& a) = 0;

  // Behind all that is on this stream, MLX's graph too. A kernel that waits by itself begins before a launch ahead of it has ended, but
  // not before a graph: it may look ahead of its wait at what that gives, the sizes of a step for instance.
  virtual void launch(const FunctionLaunch& what, mx::Stream stream) = 0;
};

// Null in builds without CUDA, and with another MLX than the pinned one: where its stream is differs by version.
Launcher*& launcher();

} // namespace mlxlm::cuda
