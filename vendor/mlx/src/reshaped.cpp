#include "reshaped.h"

#include <limits>

namespace mlxlm {

namespace {

// Neighbouring axes of two shapes that have as many elements in both.
struct Group {
  size_t in_begin;
  size_t in_end;
  size_t out_begin;
  size_t out_end;
};

// The smallest such groups.
std::vector<Group> groups_of(const mx::Shape& in, const mx::Shape& out) {
  std::vector<Group> groups;
  size_t i = 0;
  size_t o = 0;
  while (i < in.size() || o < out.size()) {
    Group group = {i, i, o, o};
    int64_t before = i < in.size() ? in[i++] : 1;
    int64_t behind = o < out.size() ? out[o++] : 1;
    while (before != behind) {
      if (before < behind) {
        before *= in[i++];
      } else {
        behind *= out[o++];
      }
    }
    group.in_end = i;
    group.out_end = o;
    groups.push_back(group);
  }
  return groups;
}

} // namespace

mx::Shape shape_of(const Box& box) {
  mx::Shape shape;
  for (size_t i = 0; i < box.from.size(); ++i) {
    shape.push_back(box.to[i] - box.from[i]);
  }
  return shape;
}

std::optional<Reshaped> before_reshape(const mx::Shape& in, const mx::Shape& out, const Box& box) {
  Reshaped found = {{in, in}, {}, {}};
  for (auto& group : groups_of(in, out)) {
    // Elements of a box are one run in their order if there are none between the first and the last that are not its own.
    int64_t first = 0;
    int64_t last = 0;
    int64_t count = 1;
    int64_t inner = 1;
    for (size_t o = group.out_begin; o < group.out_end; ++o) {
      first = first * out[o] + box.from[o];
      last = last * out[o] + box.to[o] - 1;
      count *= box.to[o] - box.from[o];
      inner *= out[o];
    }
    if (last - first + 1 != count) {
      return std::nullopt;
    }
    bool apart = false;
    int64_t size = 1;
    for (size_t i = group.in_begin; i < group.in_end; ++i) {
      inner /= in[i];
      int64_t row = apart ? 0 : first / inner;
      int64_t last_row = apart ? in[i] - 1 : last / inner;
      found.around.from[i] = static_cast<int>(row);
      found.around.to[i] = static_cast<int>(last_row) + 1;
      size *= last_row - row + 1;
      first -= row * inner;
      last -= row * inner;
      apart = apart || row != last_row;
    }
    // An axis of MLX's is no longer.
    if (size > std::numeric_limits<int>::max()) {
      return std::nullopt;
    }
    found.groups.push_back(static_cast<int>(size));
    found.within.from.push_back(static_cast<int>(first));
    found.within.to.push_back(static_cast<int>(first + count));
  }
  return found;
}

std::optional<std::vector<size_t>>
reshaped_strides(const mx::Shape& in, const std::vector<size_t>& strides, const mx::Shape& out) {
  std::vector<size_t> reshaped(out.size());
  for (auto& group : groups_of(in, out)) {
    size_t innermost = 1;
    size_t next = 0; // what the stride of the next axis must be
    for (size_t i = group.in_end; i-- > group.in_begin;) {
      if (in[i] == 1) {
        continue;
      }
      if (next == 0) {
        innermost = strides[i];
      } else if (strides[i] != next) {
        return std::nullopt;
      }
      next = strides[i] * static_cast<size_t>(in[i]);
    }
    for (size_t o = group.out_end; o-- > group.out_begin; innermost *= static_cast<size_t>(out[o])) {
      reshaped[o] = innermost;
    }
  }
  return reshaped;
}

} // namespace mlxlm
