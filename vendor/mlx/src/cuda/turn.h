// The time in which an operation that consists of others computes: MLX has called it, and what it asks for is launched at once.
#pragma once

#include "cuda/launcher.h"

namespace mlxlm::cuda {

class Turn {
 public:
  // A GPU reads what was given to an operation later than this ends, so that goes to `kept`.
  Turn(mx::Stream stream, std::vector<array>& kept);
  ~Turn();
  Turn(const Turn&) = delete;

  // This thread's; null where no operation has its turn.
  static Turn* current();

  // Computes an array and what it comes from, as MLX does, but for events and streams: there is one.
  void compute(array& a);

  // What a launch gives; nothing where there is no memory for it.
  std::optional<array> result(const mx::Shape& shape, mx::Dtype dtype);

  void launch(const FunctionLaunch& what, const std::vector<array>& inputs);

 private:
  mx::Stream stream_;
  std::vector<array>& kept_;
  Turn* outer_;
};

} // namespace mlxlm::cuda
