#include "cpu/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <fstream>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "environment.h"

namespace mlxlm::cpu {
namespace {

constexpr int max_threads = 256;

// How often a thread looks for work before it sleeps: some 50 µs, more than what lies between two products of a layer.
constexpr int spins_before_sleep = 2000;

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// CPUs' worth of time that the container may use, by version 2 or 1 of control groups; 0 where there is no limit.
int cpu_quota() {
  double quota = 0;
  double period = 0;
#ifdef __linux__
  // "max" is no number.
  if (!(std::ifstream("/sys/fs/cgroup/cpu.max") >> quota >> period)) {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
#endif
  return quota > 0 && period > 0 ? std::max(1, static_cast<int>(quota / period + 0.5)) : 0;
}

int usable_cpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    cpus = CPU_COUNT(&set);
  }
#endif
  if (int quota = cpu_quota()) {
    cpus = std::min(cpus, quota);
  }
  return cpus;
}

int wanted_threads() {
  auto text = environment("MLXLM_THREADS");
  int64_t threads = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), threads);
  if (error != std::errc() || end != text.data() + text.size() || threads < 1) {
    threads = usable_cpus();
  }
  return static_cast<int>(std::clamp<int64_t>(threads, 1, max_threads));
}

class Pool {
 public:
  explicit Pool(int threads) {
    try {
      for (; threads_ < threads; ++threads_) {
        std::thread([this] { serve(); }).detach();
      }
    } catch (const std::system_error&) {
      // There are no more to be had. Those that run need this object.
    }
  }

  int threads() const {
    return threads_;
  }

  // False where another loop is under way.
  bool run(int64_t count, void (*body)(void*, int64_t), void* context) {
    std::unique_lock lock(busy_, std::try_to_lock);
    if (!lock) {
      return false;
    }
    // All pieces taken: whoever still looks at the last loop must not find new ones before everything is in place.
    uint32_t loop = loop_of(tickets_.load(std::memory_order_relaxed));
    tickets_.store(ticket(loop, UINT32_MAX), std::memory_order_release);
    ++loop;
    body_ = body;
    context_ = context;
    done_.store(0, std::memory_order_relaxed);
    count_.store(static_cast<uint32_t>(count), std::memory_order_release);
    tickets_.store(ticket(loop, 0), std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      tickets_.notify_all();
    }
    work(loop);
    for (int spins = 0; done_.load(std::memory_order_acquire) < count; ++spins) {
      // A worker that holds the last piece may have lost its core to someone else.
      spins < spins_before_sleep ? pause() : std::this_thread::yield();
    }
    return true;
  }

 private:
  static uint64_t ticket(uint32_t loop, uint32_t piece) {
    return static_cast<uint64_t>(loop) << 32 | piece;
  }
  static uint32_t loop_of(uint64_t ticket) {
    return static_cast<uint32_t>(ticket >> 32);
  }

  // Takes pieces of one loop until none is left. A thread that comes late finds another loop's number on the ticket, or
  // all pieces taken, and touches nothing: body_ and context_ are read only with a piece in hand, which keeps run() from
  // returning.
  void work(uint32_t loop) {
    auto ticket = tickets_.load(std::memory_order_acquire);
    while (loop_of(ticket) == loop && static_cast<uint32_t>(ticket) < count_.load(std::memory_order_acquire)) {
      if (tickets_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) {
        body_(context_, static_cast<uint32_t>(ticket));
        done_.fetch_add(1, std::memory_order_release);
        ticket = tickets_.load(std::memory_order_acquire);
      }
    }
  }

  void serve() {
    uint32_t seen = 0;
    for (;;) {
      uint64_t ticket = tickets_.load(std::memory_order_acquire);
      for (int spins = 0; loop_of(ticket) == seen && spins < spins_before_sleep; ++spins) {
        pause();
        ticket = tickets_.load(std::memory_order_acquire);
      }
      if (loop_of(ticket) == seen) {
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        while (loop_of(ticket = tickets_.load(std::memory_order_seq_cst)) == seen) {
          tickets_.wait(ticket);
        }
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
      }
      seen = loop_of(ticket);
      work(seen);
    }
  }

  std::mutex busy_;
  int threads_ = 1;
  void (*body_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<uint64_t> tickets_{0}; // the loop's number, and below it the next piece
  std::atomic<uint32_t> count_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<int> sleepers_{0};
};

// Never destroyed: its threads outlive everything.
Pool& pool() {
  static auto* made = new Pool(wanted_threads());
  return *made;
}

struct Buffer {
  void* data = nullptr;
  size_t size = 0;
  ~Buffer() {
    ::operator delete(data, std::align_val_t(64));
  }
};

} // namespace

int thread_count() {
  return pool().threads();
}

void parallel_for(int64_t count, void (*body)(void*, int64_t), void* context) {
  if (count > 1 && count < UINT32_MAX && pool().threads() > 1 && pool().run(count, body, context)) {
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    body(context, i);
  }
}

void* scratch(int slot, size_t bytes) {
  thread_local Buffer buffers[3];
  auto& buffer = buffers[slot];
  if (buffer.size < bytes) {
    ::operator delete(buffer.data, std::align_val_t(64));
    buffer.data = nullptr;
    buffer.size = 0;
    size_t rounded = (bytes + 4095) / 4096 * 4096;
    buffer.data = ::operator new(rounded, std::align_val_t(64));
    buffer.size = rounded;
  }
  return buffer.data;
}

} // namespace mlxlm::cpu
