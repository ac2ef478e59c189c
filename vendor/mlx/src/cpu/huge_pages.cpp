#include "cpu/huge_pages.h"

#include <algorithm>
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

struct Range {
  uintptr_t begin;
  uintptr_t end;
};

// All pages that any of the blocks lies in, as few ranges: malloc puts blocks side by side, so most pages are full.
std::vector<Range> ranges_of(const std::vector<std::pair<char*, size_t>>& blocks) {
  std::vector<Range> pages;
  for (auto& [data, bytes] : blocks) {
    auto first = reinterpret_cast<uintptr_t>(data);
    pages.push_back({first / page * page, (first + bytes + page - 1) / page * page});
  }
  std::sort(pages.begin(), pages.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::vector<Range> ranges;
  for (auto& next : pages) {
    if (!ranges.empty() && next.begin <= ranges.back().end) {
      ranges.back().end = std::max(ranges.back().end, next.end);
    } else {
      ranges.push_back(next);
    }
  }
  return ranges;
}

} // namespace

void prefer_huge_pages(std::vector<std::pair<char*, size_t>> blocks) {
  std::thread([ranges = ranges_of(blocks)] {
    // One call for many pages: each waits for all CPUs once. A page that is not wholly mapped stays as it is, and so does
    // everything where memory is short or the system knows no such call.
    for (auto& range : ranges) {
      madvise(reinterpret_cast<void*>(range.begin), range.end - range.begin, collapse);
    }
  }).detach();
}
#else
void prefer_huge_pages(std::vector<std::pair<char*, size_t>>) {}
#endif

} // namespace mlxlm::cpu
