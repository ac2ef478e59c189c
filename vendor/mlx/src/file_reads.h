// Bytes of files that are read when they are needed, by threads that wait for disks.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mlx/io/load.h"

namespace mlxlm {

// A file that stays open as long as something is still to be read of it. MLX's parser of headers reads through it too.
class OpenFile : public mlx::core::io::Reader {
 public:
  explicit OpenFile(std::string path);
  ~OpenFile() override;
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  bool is_open() const override;
  bool good() const override;
  size_t tell() override;
  void seek(int64_t offset, std::ios_base::seekdir way) override;
  std::string label() const override;

  // The next bytes. Throws where there are not so many.
  void read(char* data, size_t count) override;

  // Bytes from `offset` on. Where the file no longer has them they are zeros, and check_mapped_files() says it.
  void read(char* data, size_t count, size_t offset) override;

 private:
  std::string path_;
  int file_;
};

// A part of a tensor that lies in a file in row-major order: runs of bytes, and the axes along which they repeat,
// outermost first.
struct FileBox {
  struct Axis {
    size_t count;
    size_t stride; // bytes from one to the next
  };

  size_t start;
  std::vector<Axis> axes;
  size_t run;
};

// Reads `count` bytes of a box, of which there are `first` before them.
void read_box(OpenFile& file, const FileBox& box, size_t first, size_t count, char* to);

// How many threads read, at least one.
int reading_threads();

// Work that is under way on them.
class Reads {
 public:
  void wait() const;

 private:
  friend class ReadingThreads;
  std::function<void(int, int64_t)> body_;
  int64_t next_ = 0;
  int64_t count_ = 0;
  std::atomic<int64_t> left_{0};
};

// Has body(thread, i) called for every i in [0, count), in order of their start, by the threads numbered from 0 on. What
// was started first goes first. The body must not throw.
std::shared_ptr<const Reads> start_reads(int64_t count, std::function<void(int thread, int64_t i)> body);

} // namespace mlxlm
