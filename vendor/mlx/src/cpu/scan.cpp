// Cuts Mamba's scan into tasks and hands them to the threads.
#include "cpu/scan.h"

#include <algorithm>

#include "cpu/thread_pool.h"

namespace mlxlm::cpu {

void run(const Scan& scan) {
  constexpr int64_t channels_at_once = 64;
  int64_t across = (scan.channels + channels_at_once - 1) / channels_at_once;
  auto& kernels = MLXLM_OF_ISA(scan_kernels);
  loop(8 * scan.batch * scan.tokens * scan.channels * scan.dims, scan.batch * across, [&](int64_t task) {
    int64_t from = task % across * channels_at_once;
    int64_t to = std::min(from + channels_at_once, scan.channels);
    auto buffer = static_cast<float*>(scratch(0, scan_buffer(scan, to - from) * sizeof(float)));
    kernels.scan(scan, task / across, from, to, buffer);
  });
}

} // namespace mlxlm::cpu
