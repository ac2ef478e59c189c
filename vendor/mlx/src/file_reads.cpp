#include "file_reads.h"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <unistd.h>

#include "mapped_files.h"

namespace mlxlm {

namespace {

// Systems refuse longer reads.
constexpr size_t longest_read = size_t{1} << 30;

// A gap of less than this costs less to read than a call of its own for what comes behind it.
constexpr size_t small_gap = 2048;

constexpr size_t longest_span = 256 << 10;

// Walks over the runs of a box.
class Cursor {
 public:
  Cursor(const FileBox& box, size_t run) : box_(box), index_(run) {
    place();
  }

  size_t at() const {
    return at_;
  }

  void next() {
    ++index_;
    if (--left_ > 0) {
      at_ += box_.axes.back().stride;
    } else {
      place();
    }
  }

 private:
  void place() {
    size_t rest = index_;
    at_ = box_.start;
    left_ = 1;
    for (size_t i = box_.axes.size(); i-- > 0; rest /= box_.axes[i].count) {
      size_t step = rest % box_.axes[i].count;
      at_ += step * box_.axes[i].stride;
      if (i + 1 == box_.axes.size()) {
        left_ = box_.axes[i].count - step;
      }
    }
  }

  const FileBox& box_;
  size_t index_;
  size_t at_ = 0;
  size_t left_ = 0; // runs along the last axis, this one included
};

struct Piece {
  size_t at;
  size_t length;
};

// Pieces of a file that lie close to each other.
void read_pieces(OpenFile& file, const std::vector<Piece>& pieces, char* to) {
  if (pieces.size() == 1) {
    return file.read(to, pieces[0].length, pieces[0].at);
  }
  thread_local std::vector<char> span(longest_span);
  size_t first = pieces.front().at;
  file.read(span.data(), pieces.back().at + pieces.back().length - first, first);
  for (auto& piece : pieces) {
    std::memcpy(to, span.data() + (piece.at - first), piece.length);
    to += piece.length;
  }
}

} // namespace

OpenFile::OpenFile(std::string path) : path_(std::move(path)), file_(open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {}

OpenFile::~OpenFile() {
  if (file_ >= 0) {
    close(file_);
  }
}

bool OpenFile::is_open() const {
  return file_ >= 0;
}

bool OpenFile::good() const {
  return is_open();
}

size_t OpenFile::tell() {
  return static_cast<size_t>(lseek(file_, 0, SEEK_CUR));
}

void OpenFile::seek(int64_t offset, std::ios_base::seekdir way) {
  lseek(file_, offset, way == std::ios_base::beg ? SEEK_SET : way == std::ios_base::end ? SEEK_END : SEEK_CUR);
}

std::string OpenFile::label() const {
  return "file " + path_;
}

void OpenFile::read(char* data, size_t count) {
  while (count > 0) {
    auto got = ::read(file_, data, std::min(count, longest_read));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      throw std::runtime_error("[read] Unable to read " + std::to_string(count) + " bytes from " + label() + ".");
    }
    data += got;
    count -= static_cast<size_t>(got);
  }
}

void OpenFile::read(char* data, size_t count, size_t offset) {
  while (count > 0) {
    auto got = pread(file_, data, std::min(count, longest_read), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      std::memset(data, 0, count);
      report_lost_bytes(file_, path_, offset + count);
      return;
    }
    data += got;
    offset += static_cast<size_t>(got);
    count -= static_cast<size_t>(got);
  }
}

void read_box(OpenFile& file, const FileBox& box, size_t first, size_t count, char* to) {
  thread_local std::vector<Piece> pieces;
  Cursor cursor(box, first / box.run);
  size_t skipped = first % box.run;
  size_t begin = 0; // of what is gathered, in the file
  size_t end = 0;
  size_t gathered = 0;
  pieces.clear();
  auto flush = [&] {
    if (!pieces.empty()) {
      read_pieces(file, pieces, to);
    }
    to += gathered;
    gathered = 0;
    pieces.clear();
  };
  while (count > 0) {
    Piece piece = {cursor.at() + skipped, std::min(box.run - skipped, count)};
    bool near = !pieces.empty() && piece.at - end < small_gap && piece.at + piece.length - begin <= longest_span;
    if (!near) {
      flush();
      begin = piece.at;
    }
    pieces.push_back(piece);
    end = piece.at + piece.length;
    gathered += piece.length;
    count -= piece.length;
    skipped = 0;
    cursor.next();
  }
  flush();
}

int reading_threads() {
  // A disk is faster with several reads at once, whatever the number of cores.
  static const int count = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 4u, 8u));
  return count;
}

class ReadingThreads {
 public:
  ReadingThreads() {
    try {
      for (; threads_ < reading_threads(); ++threads_) {
        std::thread([this, thread = threads_] { serve(thread); }).detach();
      }
    } catch (const std::system_error&) {
      // There are no more to be had.
    }
  }

  std::shared_ptr<const Reads> start(int64_t count, std::function<void(int, int64_t)> body) {
    auto reads = std::make_shared<Reads>();
    reads->body_ = std::move(body);
    reads->count_ = count;
    reads->left_ = count;
    if (count > 0) {
      std::lock_guard<std::mutex> guard(lock_);
      queue_.push_back(reads);
    }
    if (threads_ == 0) {
      std::lock_guard<std::mutex> alone(caller_);
      while (take_and_do(0)) {
      }
    } else if (count == 1) {
      wanted_.notify_one();
    } else {
      wanted_.notify_all();
    }
    return reads;
  }

 private:
  [[noreturn]] void serve(int thread) {
    for (;;) {
      {
        std::unique_lock<std::mutex> guard(lock_);
        wanted_.wait(guard, [this] { return !queue_.empty(); });
      }
      take_and_do(thread);
    }
  }

  // False where there is nothing to do.
  bool take_and_do(int thread) {
    std::shared_ptr<Reads> reads;
    int64_t i = 0;
    {
      std::lock_guard<std::mutex> guard(lock_);
      if (queue_.empty()) {
        return false;
      }
      reads = queue_.front();
      i = reads->next_++;
      if (reads->next_ == reads->count_) {
        queue_.pop_front();
      }
    }
    reads->body_(thread, i);
    if (reads->left_.fetch_sub(1) == 1) {
      reads->left_.notify_all();
    }
    return true;
  }

  std::mutex lock_;
  std::mutex caller_;
  std::condition_variable wanted_;
  std::deque<std::shared_ptr<Reads>> queue_;
  int threads_ = 0;
};

void Reads::wait() const {
  for (int64_t left = left_.load(); left > 0; left = left_.load()) {
    left_.wait(left);
  }
}

std::shared_ptr<const Reads> start_reads(int64_t count, std::function<void(int thread, int64_t i)> body) {
  // Never destroyed: its threads outlive everything.
  static auto* threads = new ReadingThreads();
  return threads->start(count, std::move(body));
}

} // namespace mlxlm
