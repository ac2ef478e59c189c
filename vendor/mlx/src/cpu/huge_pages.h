// Memory that is read from end to end for every token comes faster in pages of 2 MiB than in pages of 4 KiB.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace mlxlm::cpu {

// Has the system move these blocks, addresses and bytes, into huge pages, on a thread of its own. Their contents and
// addresses stay; blocks may be freed meanwhile. Does nothing where the system has no such call (Linux before 6.1).
void prefer_huge_pages(std::vector<std::pair<char*, size_t>> blocks);

} // namespace mlxlm::cpu
