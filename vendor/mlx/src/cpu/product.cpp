// Cuts products into tasks and hands them to the threads.
#include "cpu/product.h"

#include <algorithm>

#include "cpu/thread_pool.h"

namespace mlxlm::cpu {
namespace {

const ProductKernels& kernels() {
  return MLXLM_OF_ISA(product_kernels);
}

struct Part {
  Plan plan;
  size_t packed; // offset of its packed rows
  int64_t first_block; // number of its first block and first task among all jobs'
  int64_t first_task;
  int64_t tasks_per_panel;
};

} // namespace

void set_blocks(Product& product, BlockType type) {
  auto size = block_size(static_cast<int>(type));
  product.format = Format::blocks;
  product.transposed = true;
  product.block_type = type;
  product.block_numbers = size.numbers;
  product.block_bytes = size.bytes;
  product.tables = block_tables(type);
}

void run(const Product& product, const std::vector<Job>& jobs) {
  std::vector<Work> works;
  works.reserve(jobs.size());
  for (auto& job : jobs) {
    works.push_back({&product, job});
  }
  run(works);
}

void run(const std::vector<Work>& works) {
  auto& kernels = cpu::kernels();
  int threads = thread_count();
  std::vector<Part> parts;
  parts.reserve(works.size());
  size_t bytes = 0;
  int64_t blocks = 0;
  int64_t tasks = 0;
  int64_t packing = 0;
  int64_t multiplying = 0;
  for (auto& [product, job] : works) {
    auto plan = kernels.plan(*product, job.rows, threads);
    int64_t per_panel = (plan.blocks + plan.blocks_per_task - 1) / plan.blocks_per_task;
    parts.push_back({plan, bytes, blocks, tasks, per_panel});
    bytes += (plan.block_bytes * plan.blocks + 63) / 64 * 64;
    blocks += plan.blocks;
    tasks += plan.panels * per_panel;
    packing += job.rows * product->k;
    multiplying += job.rows * product->n * product->k;
  }
  auto packed = static_cast<char*>(scratch(1, bytes));

  auto part_of = [&](int64_t index, int64_t Part::*first) {
    auto after = std::upper_bound(parts.begin(), parts.end(), index, [&](int64_t wanted, const Part& part) {
      return wanted < part.*first;
    });
    return after - parts.begin() - 1;
  };
  loop(packing, blocks, [&](int64_t index) {
    auto i = part_of(index, &Part::first_block);
    auto& [plan, offset, first_block, _, __] = parts[i];
    int64_t block = index - first_block;
    kernels.pack(*works[i].product, works[i].job, plan, block, packed + offset + block * plan.block_bytes);
  });
  loop(multiplying, tasks, [&](int64_t index) {
    auto i = part_of(index, &Part::first_task);
    auto& [plan, offset, _, first_task, per_panel] = parts[i];
    int64_t task = index - first_task;
    int64_t first = task % per_panel * plan.blocks_per_task;
    int64_t last = std::min(first + plan.blocks_per_task, plan.blocks);
    kernels.multiply(*works[i].product, works[i].job, plan, packed + offset, task / per_panel, first, last);
  });
}

} // namespace mlxlm::cpu
