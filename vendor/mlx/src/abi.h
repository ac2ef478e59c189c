// What the C functions of the ABI share: handles, scopes, the mailbox, errors, streams.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "mlx/distributed/distributed.h"
#include "mlx/distributed/ops.h"
#include "mlx/mlx.h"

namespace mlxlm {

namespace mx = mlx::core;
using mx::array;

// An array as JavaScript knows it: the index of a slot in its low bits, the slot's generation above. Always positive;
// 0 stands for "no array" in arguments.
using Handle = int32_t;

Handle put(array value);
array& at(Handle handle);
std::optional<array> maybe_at(Handle handle);

// Frees every array made since the matching begin_scope() but those in `kept`, which pass to the enclosing scope.
void begin_scope();
void end_scope(const std::vector<Handle>& kept);
size_t scope_depth();

void keep(Handle handle);
void release(Handle handle);
void free_array(Handle handle);
int32_t live_arrays();

// Thrown where a JavaScript function has thrown; the error itself waits on the JavaScript side.
struct ThrownInJavaScript : std::runtime_error {
  ThrownInJavaScript() : std::runtime_error("a JavaScript function threw") {}
};

void set_error(const char* text) noexcept;

// Runs `body` and turns any exception into -1 with its text kept for mlxlm_last_error().
template <class Body>
auto guarded(Body&& body) noexcept -> decltype(body()) {
  try {
    return body();
  } catch (const std::system_error& error) {
    bool exhausted = error.code() == std::errc::resource_unavailable_try_again;
    set_error(
        exhausted ? "unable to allocate a thread: a limit of processes (ulimit -u) or memory (ulimit -v) is reached"
                  : error.what());
  } catch (const std::exception& error) {
    set_error(error.what());
  } catch (...) {
    set_error("MLX threw something that is not a std::exception");
  }
  return -1;
}

// The int32 list that both sides write and read: list arguments go in, handles and shapes come out.
struct Mailbox {
  int32_t* data = nullptr;
  int32_t capacity = 0;
  double* number = nullptr; // one double, for results that are not int32
};
Mailbox& mailbox();

int32_t post(const std::vector<int32_t>& values);

inline int32_t put_all(std::vector<array> values) {
  std::vector<int32_t> handles;
  handles.reserve(values.size());
  for (auto& value : values) {
    handles.push_back(put(std::move(value)));
  }
  return post(handles);
}

inline int32_t put_all(std::pair<array, array> values) {
  return put_all(std::vector<array>{values.first, values.second});
}

inline int32_t put_all(std::tuple<array, array> values) {
  return put_all(std::vector<array>{std::get<0>(values), std::get<1>(values)});
}

// Reads list arguments in the order in which they were written.
class MailReader {
 public:
  std::vector<int> ints(int32_t count) {
    auto from = take(count);
    return {from, from + count};
  }
  std::optional<std::vector<int>> maybe_ints(int32_t count) {
    if (count < 0) {
      return std::nullopt;
    }
    return ints(count);
  }
  mx::Shape shape(int32_t count) {
    auto from = take(count);
    return mx::Shape(from, from + count);
  }
  mx::Strides strides(int32_t count) {
    auto from = take(count);
    return mx::Strides(from, from + count);
  }
  std::pair<int, int> pair(int32_t count) {
    auto values = exactly(2, count);
    return {values[0], values[1]};
  }
  std::tuple<int, int, int> triple(int32_t count) {
    auto values = exactly(3, count);
    return {values[0], values[1], values[2]};
  }
  std::vector<array> arrays(int32_t count) {
    auto from = take(count);
    std::vector<array> result;
    result.reserve(count);
    for (int32_t i = 0; i < count; ++i) {
      result.push_back(at(from[i]));
    }
    return result;
  }

 private:
  int32_t* take(int32_t count) {
    if (count < 0 || cursor_ + count > mailbox().capacity) {
      throw std::length_error("a list argument is longer than the mailbox");
    }
    auto from = mailbox().data + cursor_;
    cursor_ += count;
    return from;
  }
  int32_t* exactly(int32_t expected, int32_t count) {
    if (count != expected) {
      throw std::invalid_argument(
          "expected a list of " + std::to_string(expected) + " numbers, got " + std::to_string(count));
    }
    return take(count);
  }

  int32_t cursor_ = 0;
};

// How absent optional arguments are spelled: this for int32 and dtypes, NaN for floats.
constexpr int32_t absent_int = std::numeric_limits<int32_t>::min();

inline std::optional<int> maybe_int(int32_t value) {
  return value == absent_int ? std::nullopt : std::optional<int>(value);
}
inline std::optional<bool> maybe_bool(int32_t value) {
  return value == absent_int ? std::nullopt : std::optional<bool>(value != 0);
}
inline std::optional<float> maybe_float(double value) {
  return std::isnan(value) ? std::nullopt : std::optional<float>(static_cast<float>(value));
}

mx::Dtype dtype_of(int32_t code);
inline std::optional<mx::Dtype> maybe_dtype(int32_t code) {
  return code == absent_int ? std::nullopt : std::optional<mx::Dtype>(dtype_of(code));
}

// The stream that ops are placed on; monostate means MLX's default for the default device.
mx::StreamOrDevice current_stream();

std::optional<mx::distributed::Group> group_of(int32_t id);

// Text that outlives one call: UTF-8 fields, each closed by a NUL, read by JavaScript before the next call.
int32_t post_text(std::string text);

// Splits NUL-closed fields, the form in which JavaScript sends lists of names.
std::vector<std::string> fields(const char* text, int32_t length);

// A JavaScript function of array lists, callable from C++ on the engine thread.
using ArrayFunction = std::function<std::vector<array>(const std::vector<array>&)>;
ArrayFunction javascript_function(int32_t id);
std::vector<array> call_javascript(int32_t id, const std::vector<const std::vector<array>*>& lists);

// Keeps JavaScript's function `id` known as long as a copy of the token lives.
std::shared_ptr<void> closure_token(int32_t id);

} // namespace mlxlm
