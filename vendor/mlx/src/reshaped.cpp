#include "reshaped.h"

#include <algorithm>

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

std::optional<Box> box_before_reshape(const mx::Shape& in, const mx::Shape& out, const Box& box) {
  Box inner = {in, in};
  for (auto& group : groups_of(in, out)) {
    // Elements of a box are one run in their order if there are none between the first and the last that are not its own.
    int64_t first = 0;
    int64_t last = 0;
    int64_t count = 1;
    for (size_t o = group.out_begin; o < group.out_end; ++o) {
      first = first * out[o] + box.from[o];
      last = last * out[o] + box.to[o] - 1;
      count *= box.to[o] - box.from[o];
    }
    if (last - first + 1 != count) {
      return std::nullopt;
    }
    int64_t covered = 1;
    for (size_t i = group.in_end; i-- > group.in_begin; first /= in[i], last /= in[i]) {
      inner.from[i] = static_cast<int>(first % in[i]);
      inner.to[i] = static_cast<int>(last % in[i]) + 1;
      covered *= std::max(inner.to[i] - inner.from[i], 0);
    }
    if (covered != count) {
      return std::nullopt;
    }
  }
  return inner;
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
