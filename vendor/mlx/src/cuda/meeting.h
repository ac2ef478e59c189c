// Kernels whose blocks wait for each other: one block on each multiprocessor.
#pragma once

#include <functional>

#include "abi.h"
#include "cuda/kernel.h"

namespace mlxlm::cuda {

// The greatest number of counters beside the one of the meetings.
constexpr int most_counters = 512;

// Arrays with the names that a kernel knows them by. The names are literals: this is made anew for each layer and token.
struct NamedInputs {
  std::vector<const char*> names;
  std::vector<array> arrays;

  NamedInputs() {
    constexpr int usual = 24;
    names.reserve(usual);
    arrays.reserve(usual);
  }

  void add(const char* name, const array& a) {
    names.push_back(name);
    arrays.push_back(a);
  }
  void add(const char* name, const std::optional<array>& a) {
    if (a) {
      add(name, *a);
    }
  }
};

// How such a kernel is made.
struct MeetingKernel {
  std::string name;
  std::string header;
  std::vector<std::string> outputs;
  std::vector<std::pair<std::string, mx::fast::TemplateArg>> arguments;
  int shared_memory;
  int blocks;
  int threads;
  Reads reads;
};

// The outputs of a kernel with this source, of these shapes and dtypes. `key` decides all that `make` gives. Beside its own
// inputs the kernel gets `state`, counters that go on from kernel to kernel, and `after`.
std::vector<array> launch_meeting(
    const char* source, std::vector<int> key, NamedInputs inputs, std::vector<mx::Shape> shapes, const std::vector<mx::Dtype>& dtypes,
    mx::Stream stream, const std::function<MeetingKernel()>& make);

// Two kernels that wait must not be on the GPU at once, since each could hold multiprocessors that the other waits for, here or
// on another rank. In one CUDA graph they could be, if neither took what the other gives: so each takes what the one before it
// gives, as an input that it does not look at.
array after_meetings(mx::Stream stream);

// What the newest of them gives.
void remember_meeting(const array& result);

// That, and the way back to it, for who takes the place of the newest one.
std::optional<array> newest_meeting();
void forget_meeting(std::optional<array> earlier);

// For an operation that asks for such kernels when it is its turn: those within it come behind `before` and have nothing to do with
// what was asked for meanwhile.
class MeetingsWithin {
 public:
  explicit MeetingsWithin(const array& before);
  ~MeetingsWithin();
  MeetingsWithin(const MeetingsWithin&) = delete;

 private:
  std::optional<array> outer_;
};

// What is asked for between these two and not evaluated by then never is: what comes behind does not wait for it. They may be nested.
void set_meetings_aside();
void restore_meetings();

} // namespace mlxlm::cuda
