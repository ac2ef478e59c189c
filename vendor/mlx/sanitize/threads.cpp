#include <array>
#include <chrono>
#include <thread>
#include <vector>

#include "checks.h"
#include "cpu/thread_pool.h"

namespace mlxlm::cpu {

// The pool's own, which the checks' stands in for.
void* pool_scratch(int slot, size_t bytes);

} // namespace mlxlm::cpu

namespace mlxlm::check {
namespace {

// How often each index of a loop was met, in plain memory: a lost or doubled one is seen, and by ThreadSanitizer a race.
bool each_once(int64_t count) {
  std::vector<int> met(count);
  cpu::parallel_for(count, [&](int64_t i) { ++met[i]; });
  for (int times : met) {
    if (times != 1) {
      return false;
    }
  }
  return true;
}

bool many(int loops) {
  bool right = true;
  for (int i = 0; i < loops; ++i) {
    right = each_once(i % 9) && right;
  }
  return right;
}

void check_scratch() {
  auto first = static_cast<char*>(cpu::pool_scratch(0, 100));
  auto second = static_cast<char*>(cpu::pool_scratch(1, 100));
  first[99] = 1;
  second[99] = 2;
  expect(reinterpret_cast<uintptr_t>(first) % 64 == 0, "scratch aligned");
  expect(cpu::pool_scratch(0, 50) == first && first[99] == 1, "scratch kept where it is large enough");
  auto larger = static_cast<char*>(cpu::pool_scratch(0, 1 << 20));
  larger[(1 << 20) - 1] = 3;
  expect(second[99] == 2, "slots apart");
}

} // namespace

void check_threads(Sweep sweep) {
  int loops = sweep == Sweep::all ? 20000 : 2000;
  expect(many(loops), "small loops");
  expect(each_once(5 * loops), "a long loop");

  // Long enough between loops for the others to fall asleep.
  for (int i = 0; i < 30; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    expect(each_once(8), "a loop after a pause");
  }

  std::array<bool, 3> right = {};
  std::vector<std::thread> callers;
  for (auto& mine : right) {
    callers.emplace_back([&mine, loops] { mine = many(loops / 4); });
  }
  for (auto& caller : callers) {
    caller.join();
  }
  expect(right[0] && right[1] && right[2], "loops of three callers at once");

  std::array<std::array<int, 5>, 40> met = {};
  cpu::parallel_for(40, [&](int64_t i) { cpu::parallel_for(5, [&](int64_t j) { ++met[i][j]; }); });
  for (auto& row : met) {
    for (int times : row) {
      expect(times == 1, "loops in a loop");
    }
  }
  check_scratch();
}

} // namespace mlxlm::check
