// Cuts attention into tasks and hands them to the threads.
#include "cpu/attention.h"

#include <algorithm>

#include "cpu/thread_pool.h"

namespace mlxlm::cpu {
namespace {

// A thread's share of the keys is worth at least so many of them.
constexpr int64_t least_keys = 4 * key_block;

const AttentionKernels& kernels() {
  return MLXLM_OF_ISA(attention_kernels);
}

// One query a head: keys are shared out where there are fewer heads than would keep all threads busy.
void run_one(const Attention& a) {
  auto& kernels = cpu::kernels();
  int64_t pairs = a.batch * (a.heads / a.group);
  int64_t wanted = (2 * thread_count() + pairs - 1) / pairs;
  int64_t parts = std::clamp(wanted, int64_t{1}, std::max(int64_t{1}, a.total / least_keys));
  int64_t keys = (a.total + parts - 1) / parts;
  keys = (keys + key_block - 1) / key_block * key_block;
  parts = (a.total + keys - 1) / keys;
  int64_t stride = a.group * (a.dims + 2);
  auto partial = static_cast<float*>(scratch(1, pairs * parts * stride * sizeof(float)));
  auto part = [&](int64_t index) {
    int64_t from = index % parts * keys;
    kernels.attend_one(a, index / parts, from, std::min(from + keys, a.total), partial + index * stride);
  };
  loop(a.batch * a.heads * a.total * a.dims, pairs * parts, part);
  for (int64_t index = 0; index < a.batch * a.heads; ++index) {
    int64_t pair = index / a.group;
    auto first = partial + pair * parts * stride + index % a.group * (a.dims + 2);
    kernels.combine(a, index / a.heads, index % a.heads, first, parts, stride);
  }
}

} // namespace

void run(const Attention& attention) {
  if (attention.length == 1) {
    return run_one(attention);
  }
  auto& kernels = cpu::kernels();
  size_t bytes = kernels.scratch_bytes(attention);
  parallel_for(kernels.tasks(attention), [&](int64_t task) { kernels.attend(attention, task, scratch(0, bytes)); });
}

} // namespace mlxlm::cpu
