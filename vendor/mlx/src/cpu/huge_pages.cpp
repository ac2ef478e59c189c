#include "cpu/huge_pages.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <thread>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace mlxlm::cpu {

#ifdef __linux__
namespace {

constexpr uintptr_t page = 2 << 20;

// Older headers don't name it.
constexpr int collapse = 25;

// The pages that any of the blocks lies in, each once: malloc puts blocks side by side, so most pages are full.
std::vector<uintptr_t> pages_of(const std::vector<std::pair<char*, size_t>>& blocks) {
  std::vector<uintptr_t> pages;
  for (auto& [data, bytes] : blocks) {
    auto first = reinterpret_cast<uintptr_t>(data);
    for (auto at = first / page * page; at < first + bytes; at += page) {
      pages.push_back(at);
    }
  }
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  return pages;
}

} // namespace

void prefer_huge_pages(std::vector<std::pair<char*, size_t>> blocks) {
  auto pages = pages_of(blocks);
  if (pages.empty()) {
    return;
  }
  std::thread([pages = std::move(pages)] {
    bool known = false;
    for (auto at : pages) {
      // A page that is not wholly part of one mapping stays as it is. So does everything where memory is short.
      if (madvise(reinterpret_cast<void*>(at), page, collapse) == 0) {
        known = true;
      } else if (!known && at != pages.front() && at != pages.back() && errno == EINVAL) {
        return;
      }
    }
  }).detach();
}
#else
void prefer_huge_pages(std::vector<std::pair<char*, size_t>>) {}
#endif

} // namespace mlxlm::cpu
