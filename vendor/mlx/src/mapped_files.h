// Files whose bytes lie in this process's memory, page by page as they are needed.
#pragma once

#include <cstddef>
#include <string>

namespace mlxlm {

// Bytes of a file from `start` on. Writes to them stay in this process.
struct Mapping {
  // Throws where the file cannot be opened, or ends before.
  Mapping(const char* path, size_t start, size_t length);

  void* base; // what `unmap` takes
  char* data; // the byte at `start`; 64 bytes in front of it may be written to
};

void unmap(void* base);

// Throws where bytes were asked for that a file no longer has, as it was cut or its disk fails: what was computed since is
// worth nothing. A system would end the process with SIGBUS; here zeros take the place of such pages, and it is said once,
// and again for as long as the mapping lasts.
void check_mapped_files();

// Has it say once that an open file lacks some of its first `needed` bytes, in whose place zeros were read.
void report_lost_bytes(int file, const std::string& path, size_t needed);

} // namespace mlxlm
