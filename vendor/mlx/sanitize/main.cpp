// Runs the CPU kernels that know nothing of MLX, without MLX, on memory of exactly the size that they may touch. Which
// instruction set and how many threads: MLXLM_CPU_ISA, MLXLM_THREADS.
//
//   check [few]        all cases, or few of them; exit code 1 where one differs
//   check past-the-end, check race
//                      a fault on purpose: proof that it would be noticed
//   check isa          prints the instruction set it would run with
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string_view>
#include <thread>

#include "checks.h"
#include "cpu/isa.h"
#include "cpu/thread_pool.h"
#include "memory.h"

namespace mlxlm::check {
namespace {

int64_t comparisons = 0;
int64_t failures = 0;
constexpr int64_t reported = 20;

int read_past_the_end() {
  Exact memory(5);
  return static_cast<volatile char*>(memory.data<char>())[5];
}

// Needs two threads.
int race() {
  int shared = 0;
  cpu::parallel_for(20, [&](int64_t) {
    // So that each thread gets some.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ++shared;
  });
  return shared == 0;
}

int check_all(Sweep sweep) {
  check_threads(sweep);
  check_rows(sweep);
  check_products(sweep);
  check_blocks(sweep);
  check_attention(sweep);
  check_recurrence(sweep);
  std::printf(
      "%lld comparisons on %d threads, %lld wrong\n", static_cast<long long>(comparisons), cpu::thread_count(),
      static_cast<long long>(failures));
  return failures == 0 ? 0 : 1;
}

} // namespace

void expect(bool holds, const std::string& what) {
  ++comparisons;
  if (!holds && ++failures <= reported) {
    std::printf("wrong: %s\n", what.c_str());
  }
}

void expect_near(double got, double wanted, double tolerance, const std::string& what) {
  bool holds = std::isnan(wanted) ? std::isnan(got)
      : std::isinf(wanted)        ? got == wanted
                                  : std::abs(got - wanted) <= tolerance;
  if (holds) {
    ++comparisons;
    return;
  }
  char numbers[96];
  std::snprintf(numbers, sizeof(numbers), ": %.9g instead of %.9g ± %.2g", got, wanted, tolerance);
  expect(false, what + numbers);
}

} // namespace mlxlm::check

int main(int count, char** arguments) {
  using namespace mlxlm;
  std::string_view task = count > 1 ? arguments[1] : "";
  if (task == "past-the-end") {
    return check::read_past_the_end();
  }
  if (task == "race") {
    return check::race();
  }
  if (task == "isa") {
    constexpr const char* names[] = {"plain", "avx2", "avx512", "avx512_bf16"};
    std::puts(names[static_cast<int>(cpu::isa())]);
    return 0;
  }
  if (task == "" || task == "few") {
    return check::check_all(task == "few" ? check::Sweep::few : check::Sweep::all);
  }
  std::fprintf(stderr, "check: no task \"%s\"\n", arguments[1]);
  return 2;
}
