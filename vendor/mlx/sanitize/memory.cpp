#include "memory.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "cpu/thread_pool.h"

namespace mlxlm::check {

Exact::Exact(size_t bytes, size_t alignment) : bytes_(bytes) {
  size_t page = sysconf(_SC_PAGESIZE);
  size_t aligned = (bytes + alignment - 1) / alignment * alignment;
  size_t body = (aligned + page - 1) / page * page;
  mapped_ = body + page;
  void* mapping = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED || mprotect(static_cast<char*>(mapping) + body, page, PROT_NONE) != 0) {
    std::perror("mmap");
    std::abort();
  }
  mapping_ = static_cast<char*>(mapping);
  start_ = mapping_ + body - aligned;
  std::memset(start_, 0xff, bytes);
  ASAN_POISON_MEMORY_REGION(mapping_, body - aligned);
  ASAN_POISON_MEMORY_REGION(start_ + bytes, aligned - bytes);
}

Exact::~Exact() {
  ASAN_UNPOISON_MEMORY_REGION(mapping_, mapped_);
  munmap(mapping_, mapped_);
}

} // namespace mlxlm::check

namespace mlxlm::cpu {

// Stands in for the pool's, which keeps and rounds up what it gives out: here a call's memory is new, and the slot's last
// is gone.
void* scratch(int slot, size_t bytes) {
  thread_local std::unique_ptr<check::Exact> given[3];
  given[slot].reset();
  given[slot] = std::make_unique<check::Exact>(bytes, 64);
  return given[slot]->data();
}

} // namespace mlxlm::cpu
