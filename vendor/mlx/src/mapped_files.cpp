#include "mapped_files.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <mutex>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace mlxlm {

namespace {

// A handler of signals walks the list: entries are never freed, but used again.
struct Entry {
  std::atomic<uintptr_t> begin{0}; // 0: not in use
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> failed{false};
  std::string path;
  size_t needed = 0; // bytes that the file must have
  Entry* next = nullptr;
};

std::atomic<Entry*> entries{nullptr};
std::atomic<int> failures{0}; // of mappings, and of what is gone
std::mutex lock; // of all else
std::string gone; // what is to be said of a mapping that was let go, or of bytes that were read
std::string reported; // the file that was last complained of: it may have many mappings
struct sigaction previous;

const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));

uintptr_t up_to_page(uintptr_t address) {
  return (address + page - 1) / page * page;
}

// Zeros from the page of an address to the mapping's end. Nothing here but what a handler of signals may call.
bool replace_pages(Entry& entry, uintptr_t address) {
  uintptr_t first = address / page * page;
  size_t size = entry.end.load() - first;
  int before = errno;
  void* zeros = mmap(
      reinterpret_cast<void*>(first), size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  errno = before;
  if (zeros == MAP_FAILED) {
    return false;
  }
  if (!entry.failed.exchange(true)) {
    failures.fetch_add(1);
  }
  return true;
}

// Faults outside of mappings are whoever's they were before.
void pass_on(int signal, siginfo_t* facts, void* context) {
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(signal, facts, context);
  } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
    // Comes again when this one is done, and ends the process.
    struct sigaction usual = {};
    usual.sa_handler = SIG_DFL;
    sigaction(signal, &usual, nullptr);
    raise(signal);
  } else {
    previous.sa_handler(signal);
  }
}

void on_bus_error(int signal, siginfo_t* facts, void* context) {
  auto address = reinterpret_cast<uintptr_t>(facts->si_addr);
  bool is_fault = facts->si_code > 0; // not sent by a process
  for (Entry* entry = entries.load(); is_fault && entry; entry = entry->next) {
    uintptr_t begin = entry->begin.load();
    if (begin != 0 && begin <= address && address < entry->end.load() && replace_pages(*entry, address)) {
      return;
    }
  }
  pass_on(signal, facts, context);
}

void handle_bus_errors() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction own = {};
    own.sa_sigaction = on_bus_error;
    own.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&own.sa_mask);
    sigaction(SIGBUS, &own, &previous);
  });
}

void remember(void* base, size_t size, const char* path, size_t needed) {
  std::lock_guard<std::mutex> guard(lock);
  Entry* entry = entries.load();
  while (entry && entry->begin.load() != 0) {
    entry = entry->next;
  }
  bool is_new = entry == nullptr;
  if (is_new) {
    entry = new Entry;
  }
  auto begin = reinterpret_cast<uintptr_t>(base);
  entry->failed = false;
  entry->path = path;
  // A file that is opened again is complained of again.
  reported = reported == path ? "" : reported;
  entry->needed = needed;
  entry->end = up_to_page(begin + size);
  entry->begin = begin;
  if (is_new) {
    entry->next = entries.load();
    entries = entry;
  }
}

std::string failure_of(const std::string& path, bool is_whole) {
  return path + (is_whole ? " can no longer be read" : " became shorter while it was in use");
}

std::string failure_of(const Entry& entry) {
  struct stat facts;
  bool is_whole = stat(entry.path.c_str(), &facts) == 0 && static_cast<size_t>(facts.st_size) >= entry.needed;
  return failure_of(entry.path, is_whole);
}

} // namespace

Mapping::Mapping(const char* path, size_t start, size_t length) : base(MAP_FAILED) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    throw std::runtime_error(std::string(path) + " cannot be opened: " + std::strerror(errno));
  }
  struct stat facts;
  bool reaches = fstat(file, &facts) == 0 && start + length <= static_cast<size_t>(facts.st_size);
  constexpr size_t room = 64;
  size_t before = start % page < room ? start % page + page : start % page;
  size_t size = before + length;
  if (reaches && start >= before) {
    base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, static_cast<off_t>(start - before));
  }
  close(file);
  if (base == MAP_FAILED) {
    throw std::runtime_error(std::string(path) + " cannot be mapped");
  }
  data = static_cast<char*>(base) + before;
  handle_bus_errors();
  remember(base, size, path, start + length);
  madvise(base, size, MADV_WILLNEED);
}

void unmap(void* base) {
  std::lock_guard<std::mutex> guard(lock);
  Entry* entry = entries.load();
  while (entry->begin.load() != reinterpret_cast<uintptr_t>(base)) {
    entry = entry->next;
  }
  if (entry->failed && gone.empty() && entry->path != reported) {
    gone = failure_of(*entry);
  } else if (entry->failed) {
    failures.fetch_sub(1);
  }
  size_t size = entry->end.load() - entry->begin.load();
  entry->begin = 0;
  munmap(base, size);
}

void report_lost_bytes(int file, const std::string& path, size_t needed) {
  struct stat facts;
  bool is_whole = fstat(file, &facts) == 0 && static_cast<size_t>(facts.st_size) >= needed;
  std::lock_guard<std::mutex> guard(lock);
  if (gone.empty()) {
    gone = failure_of(path, is_whole);
    failures.fetch_add(1);
  }
}

void check_mapped_files() {
  if (failures.load() == 0) {
    return;
  }
  std::lock_guard<std::mutex> guard(lock);
  if (!gone.empty()) {
    std::string text;
    text.swap(gone);
    failures.fetch_sub(1);
    throw std::runtime_error(text);
  }
  for (Entry* entry = entries.load(); entry; entry = entry->next) {
    if (entry->begin.load() != 0 && entry->failed) {
      reported = entry->path;
      throw std::runtime_error(failure_of(*entry));
    }
  }
}

} // namespace mlxlm
