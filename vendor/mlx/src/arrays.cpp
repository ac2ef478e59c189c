// Arrays from and to host memory, their facts, evaluation.
#include "abi.h"
#include "cuda/buffers.h"
#include "mapped_files.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

using namespace mlxlm;

namespace {

// An evaluated, row-contiguous version of the array, safe to read on the host.
array readable(const array& source) {
  array result = source;
  result.eval();
  if (!result.flags().row_contiguous) {
    result = mx::contiguous(result, false, current_stream());
    result.eval();
  }
  return result;
}

// Where the highest `count` of some values are. Candidates gather above the lowest that may still be one of them, and are
// thinned out when there are twice as many as asked for.
template <class T>
std::vector<int32_t> highest_places(const T* values, int n, int count) {
  constexpr int block = 64;
  std::vector<std::pair<float, int32_t>> found;
  auto before = [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; };
  float least = -std::numeric_limits<float>::infinity();
  auto thin = [&] {
    std::nth_element(found.begin(), found.begin() + (count - 1), found.end(), before);
    found.resize(count);
    least = found.back().first;
  };
  for (int start = 0; start < n; start += block) {
    int end = std::min(start + block, n);
    bool any = false;
    for (int i = start; i < end; ++i) {
      any |= static_cast<float>(values[i]) > least;
    }
    for (int i = start; any && i < end; ++i) {
      if (float value = static_cast<float>(values[i]); value > least) {
        found.emplace_back(value, i);
        if (found.size() == 2 * static_cast<size_t>(count)) {
          thin();
        }
      }
    }
  }
  if (found.size() > static_cast<size_t>(count)) {
    thin();
  }
  std::sort(found.begin(), found.end(), before);
  std::vector<int32_t> places;
  for (auto& [value, place] : found) {
    places.push_back(place);
  }
  return places;
}

// The only number of an array that has been computed. Of a large buffer on a GPU, in which it may be, nothing else moves.
double number_of(const array& value) {
  alignas(16) char bytes[16];
  cuda::copy_to_host(value, bytes);
  auto as = [&]<class T>(T number) {
    std::memcpy(&number, bytes, sizeof(number));
    return static_cast<double>(static_cast<std::conditional_t<std::is_arithmetic_v<T>, T, float>>(number));
  };
  switch (value.dtype().val()) {
    case mx::Dtype::Val::bool_:
      return as(bool());
    case mx::Dtype::Val::uint8:
      return as(uint8_t());
    case mx::Dtype::Val::uint16:
      return as(uint16_t());
    case mx::Dtype::Val::uint32:
      return as(uint32_t());
    case mx::Dtype::Val::uint64:
      return as(uint64_t());
    case mx::Dtype::Val::int8:
      return as(int8_t());
    case mx::Dtype::Val::int16:
      return as(int16_t());
    case mx::Dtype::Val::int32:
      return as(int32_t());
    case mx::Dtype::Val::int64:
      return as(int64_t());
    case mx::Dtype::Val::float16:
      return as(mx::float16_t());
    case mx::Dtype::Val::float32:
      return as(float());
    case mx::Dtype::Val::float64:
      return as(double());
    case mx::Dtype::Val::bfloat16:
      return as(mx::bfloat16_t());
    case mx::Dtype::Val::complex64:
      throw std::invalid_argument("a complex64 tensor has no single number: read it with toArray()");
  }
  throw std::invalid_argument("unknown dtype");
}

} // namespace

extern "C" {

// A copy of `bytes` bytes of host memory as an array of the shape in the mailbox.
int32_t mlxlm_from_data(const void* data, double bytes, int32_t rank, int32_t dtype) {
  return guarded([&] {
    auto shape = MailReader().shape(rank);
    auto type = dtype_of(dtype);
    // Ids and lengths are read a few times, so a GPU reads them where they are. In MLX's shared memory the kernel would wait for pages that
    // move, and the host for all that the GPU has to do when that memory is freed.
    auto pinned = type == mx::int32 || type == mx::uint32 ? cuda::pinned_array(shape, type) : std::nullopt;
    auto result = pinned ? *pinned : array(mx::allocator::malloc(static_cast<size_t>(bytes)), shape, type);
    if (static_cast<double>(result.nbytes()) != bytes) {
      throw std::invalid_argument("the data is not as long as its shape and dtype say");
    }
    if (bytes > 0) {
      std::memcpy(result.data<char>(), data, static_cast<size_t>(bytes));
    }
    return put(std::move(result));
  });
}

int32_t mlxlm_scalar(double value, int32_t dtype) {
  return guarded([&] {
    auto type = dtype_of(dtype);
    if (mx::issubdtype(type, mx::integer)) {
      return put(array(static_cast<int64_t>(value), type));
    }
    return put(type == mx::float64 ? array(value, type) : array(static_cast<float>(value), type));
  });
}

// Mailbox: dtype code, then the shape. Returns the rank.
int32_t mlxlm_describe(int32_t handle) {
  return guarded([&] {
    const auto& value = at(handle);
    auto& box = mailbox();
    box.data[0] = static_cast<int32_t>(value.dtype().val());
    std::memcpy(box.data + 1, value.shape().data(), value.ndim() * sizeof(int32_t));
    return static_cast<int32_t>(value.ndim());
  });
}

// Evaluates and copies the whole array, in row-major order, into `destination`.
int32_t mlxlm_read(int32_t handle, void* destination, double bytes) {
  return guarded([&] {
    auto value = readable(at(handle));
    if (static_cast<double>(value.nbytes()) != bytes) {
      throw std::invalid_argument("the buffer does not have the tensor's size");
    }
    if (bytes > 0) {
      cuda::copy_to_host(value, destination);
    }
    check_mapped_files();
    return 0;
  });
}

// Evaluates floats (rows, n) and posts where the highest `count` of a row are: the highest first, the first of equals first.
// What is no number is not among them.
int32_t mlxlm_highest(int32_t handle, int32_t row, int32_t count) {
  return guarded([&] {
    auto value = readable(at(handle));
    if (value.ndim() != 2 || row < 0 || row >= value.shape(0) || count < 1) {
      throw std::invalid_argument("the highest values are asked of a row that there is not");
    }
    int n = value.shape(1);
    auto places = [&]<class T>(T) {
      std::vector<T> values(n);
      cuda::copy_to_host(value, values.data(), static_cast<size_t>(row) * n, n);
      return post(highest_places(values.data(), n, count));
    };
    switch (value.dtype().val()) {
      case mx::Dtype::Val::float32:
        return places(float());
      case mx::Dtype::Val::float16:
        return places(mx::float16_t());
      case mx::Dtype::Val::bfloat16:
        return places(mx::bfloat16_t());
      default:
        throw std::invalid_argument("the highest values are asked of a tensor that has no floats");
    }
  });
}

// Evaluates a one-element array; the number is left beside the mailbox.
int32_t mlxlm_item(int32_t handle) {
  return guarded([&] {
    auto& value = at(handle);
    if (value.size() != 1) {
      throw std::invalid_argument("item() needs a tensor of one element, this one has " + std::to_string(value.size()));
    }
    value.eval();
    check_mapped_files();
    *mailbox().number = number_of(value);
    return 0;
  });
}

int32_t mlxlm_eval(int32_t count) {
  return guarded([&] {
    mx::eval(MailReader().arrays(count));
    check_mapped_files();
    return 0;
  });
}

int32_t mlxlm_async_eval(int32_t count) {
  return guarded([&] {
    mx::async_eval(MailReader().arrays(count));
    return 0;
  });
}

// Whether the array's values exist already (1) or are still to be computed (0).
int32_t mlxlm_is_evaluated(int32_t handle) {
  return guarded([&] { return at(handle).is_available() ? 1 : 0; });
}

// Whether the array is computed, or about to be by an evaluation that has begun (1), or only built (0).
int32_t mlxlm_is_scheduled(int32_t handle) {
  return guarded([&] { return at(handle).status() != mx::array::Status::unscheduled ? 1 : 0; });
}

// Puts a copy of another handle's array in a slot of its own.
int32_t mlxlm_share(int32_t handle) {
  return guarded([&] { return put(at(handle)); });
}

// NumPy's promotion of two dtypes, as MLX does it.
int32_t mlxlm_promote(int32_t a, int32_t b) {
  return guarded([&] { return static_cast<int32_t>(mx::promote_types(dtype_of(a), dtype_of(b)).val()); });
}

} // extern "C"
