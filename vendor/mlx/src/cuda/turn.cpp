#include "cuda/turn.h"

#include "cuda/kernel.h"
#include "mlx/primitives.h"

namespace mlxlm::cuda {

namespace {

thread_local Turn* now = nullptr;

// Nothing was computed: the same numbers in another shape.
bool is_view(const array& a) {
  return a.inputs().size() == 1 && a.buffer().ptr() == a.inputs()[0].buffer().ptr();
}

} // namespace

Launcher*& launcher() {
  static Launcher* made = nullptr;
  return made;
}

Turn::Turn(mx::Stream stream, std::vector<array>& kept) : stream_(stream), kept_(kept), outer_(std::exchange(now, this)) {}

Turn::~Turn() {
  now = outer_;
}

Turn* Turn::current() {
  return now;
}

void Turn::compute(array& a) {
  if (!a.has_primitive() || a.status() != array::Status::unscheduled) {
    return;
  }
  for (auto& input : a.inputs()) {
    compute(input);
  }
  auto outputs = a.outputs();
  if (launcher()) {
    launcher()->take_newest();
  }
  a.primitive().eval_gpu(a.inputs(), outputs);
  if (auto function = launcher() ? launcher()->take_newest() : nullptr) {
    remember_function(a.primitive(), function);
  }
  for (auto& output : outputs) {
    output.set_status(array::Status::evaluated);
  }
  if (!is_view(a)) {
    kept_.insert(kept_.end(), a.inputs().begin(), a.inputs().end());
    kept_.insert(kept_.end(), outputs.begin(), outputs.end());
  }
  a.detach();
}

std::optional<array> Turn::result(const mx::Shape& shape, mx::Dtype dtype) {
  return launcher()->result(shape, dtype, stream_);
}

void Turn::launch(const FunctionLaunch& what, const std::vector<array>& inputs) {
  launcher()->launch(what, stream_);
  for (auto& input : inputs) {
    if (!launcher()->owns(input)) {
      kept_.push_back(input);
    }
  }
}

} // namespace mlxlm::cuda
