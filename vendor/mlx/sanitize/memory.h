// Memory that faults where a kernel reads or writes past its end.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlxlm::check {

// Exactly `bytes` bytes, all 0xff (no float is a number then), that end at a page nobody may touch: masked instructions,
// which sanitizers do not see, fault there too. What lies before them, and between them and the page where `alignment`
// leaves a gap, is poisoned under AddressSanitizer.
class Exact {
 public:
  explicit Exact(size_t bytes, size_t alignment = 1);
  ~Exact();
  Exact(const Exact&) = delete;
  Exact& operator=(const Exact&) = delete;

  template <class T = void>
  T* data() const {
    return static_cast<T*>(static_cast<void*>(start_));
  }
  size_t size() const {
    return bytes_;
  }

 private:
  char* mapping_;
  size_t mapped_;
  char* start_;
  size_t bytes_;
};

} // namespace mlxlm::check
