#include "file_slices.h"

#include <algorithm>
#include <string_view>

#include "file_tensors.h"
#include "mlx/primitives.h"

namespace mlxlm {

namespace {

// What an operation does with its operands.
enum class Kind {
  other,
  file,
  each, // makes each element of those at the same place
  joined,
  reshaped,
  spread, // repeats them along axes
  stepped,
  turned,
  viewed, // takes their bytes for another dtype
};

Kind kind_of(const array& a) {
  if (a.status() != array::Status::unscheduled || !a.has_primitive()) {
    return Kind::other;
  }
  // By their names: not every build of MLX exports the types.
  static constexpr std::pair<std::string_view, Kind> kinds[] = {
      {"FileTensor", Kind::file},       {"AsType", Kind::each},      {"Contiguous", Kind::each},
      {"Copy", Kind::each},             {"FromFP8", Kind::each},     {"Multiply", Kind::each},
      {"Concatenate", Kind::joined},    {"Broadcast", Kind::spread}, {"ExpandDims", Kind::reshaped},
      {"Flatten", Kind::reshaped},      {"Reshape", Kind::reshaped}, {"Squeeze", Kind::reshaped},
      {"Unflatten", Kind::reshaped},    {"Slice", Kind::stepped},    {"Transpose", Kind::turned}};
  std::string_view named = a.primitive().name();
  for (auto [name, kind] : kinds) {
    if (named == name) {
      return kind;
    }
  }
  // The dtype stands behind it.
  return named.substr(0, 5) == "View " ? Kind::viewed : Kind::other;
}

std::optional<array> part_of(const array& a, const Box& box, mx::StreamOrDevice s);

// A scale that is not in files is cut, too. MLX's primitives of this kind know no shapes.
std::optional<array> part_of_each(const array& a, const Box& box, mx::StreamOrDevice s) {
  std::vector<array> parts;
  for (auto& whole : a.inputs()) {
    auto part = is_in_files(whole) ? part_of(whole, box, s) : mx::slice(whole, box.from, box.to, s);
    if (!part) {
      return std::nullopt;
    }
    parts.push_back(std::move(*part));
  }
  return array(shape_of(box), a.dtype(), a.primitive_ptr(), std::move(parts));
}

std::optional<array> part_of_joined(const array& a, const Box& box, mx::StreamOrDevice s) {
  int axis = static_cast<mx::Concatenate&>(a.primitive()).state();
  std::vector<array> parts;
  int before = 0;
  for (auto& whole : a.inputs()) {
    auto own = box;
    own.from[axis] = std::max(box.from[axis] - before, 0);
    own.to[axis] = std::min(box.to[axis] - before, whole.shape(axis));
    before += whole.shape(axis);
    if (own.from[axis] >= own.to[axis]) {
      continue;
    }
    auto part = part_of(whole, own, s);
    if (!part) {
      return std::nullopt;
    }
    parts.push_back(std::move(*part));
  }
  return parts.size() == 1 ? parts[0] : mx::concatenate(std::move(parts), axis, s);
}

std::optional<array> part_of_reshaped(const array& a, const Box& box, mx::StreamOrDevice s) {
  auto& whole = a.inputs()[0];
  auto reshaped = kind_of(whole) == Kind::file ? reshape_file_tensor(whole, a.shape()) : std::nullopt;
  if (reshaped) {
    return slice_file_tensor(*reshaped, box);
  }
  auto before = before_reshape(whole.shape(), a.shape(), box);
  auto part = before ? part_of(whole, before->around, s) : std::nullopt;
  if (!part) {
    return std::nullopt;
  }
  if (shape_of(before->within) != before->groups) {
    auto rows = mx::reshape(*part, before->groups, s);
    part = mx::slice(rows, before->within.from, before->within.to, s);
  }
  return mx::reshape(*part, shape_of(box), s);
}

std::optional<array> part_of_spread(const array& a, const Box& box, mx::StreamOrDevice s) {
  auto& whole = a.inputs()[0];
  size_t added = a.ndim() - whole.ndim();
  Box inner;
  for (size_t i = added; i < a.ndim(); ++i) {
    bool repeats = whole.shape(static_cast<int>(i - added)) == 1;
    inner.from.push_back(repeats ? 0 : box.from[i]);
    inner.to.push_back(repeats ? 1 : box.to[i]);
  }
  auto part = part_of(whole, inner, s);
  return part ? std::optional(mx::broadcast_to(*part, shape_of(box), s)) : std::nullopt;
}

std::optional<array> part_of_stepped(const array& a, const Box& box, mx::StreamOrDevice s) {
  auto [start, stop, steps] = static_cast<mx::Slice&>(a.primitive()).state();
  auto inner = box;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i] < 1) {
      return std::nullopt;
    }
    inner.from[i] = start[i] + box.from[i] * steps[i];
    inner.to[i] = start[i] + (box.to[i] - 1) * steps[i] + 1;
  }
  auto part = part_of(a.inputs()[0], inner, s);
  return part ? std::optional(mx::slice(*part, mx::Shape(steps.size(), 0), part->shape(), steps, s)) : std::nullopt;
}

std::optional<array> part_of_turned(const array& a, const Box& box, mx::StreamOrDevice s) {
  auto axes = static_cast<mx::Transpose&>(a.primitive()).state();
  auto inner = box;
  for (size_t i = 0; i < axes.size(); ++i) {
    inner.from[axes[i]] = box.from[i];
    inner.to[axes[i]] = box.to[i];
  }
  auto part = part_of(a.inputs()[0], inner, s);
  return part ? std::optional(mx::transpose(*part, axes, s)) : std::nullopt;
}

std::optional<array> part_of_viewed(const array& a, const Box& box, mx::StreamOrDevice s) {
  auto& whole = a.inputs()[0];
  auto inner = box;
  for (int* edge : {&inner.from.back(), &inner.to.back()}) {
    size_t bytes = static_cast<size_t>(*edge) * a.itemsize();
    if (bytes % whole.itemsize() != 0) {
      return std::nullopt;
    }
    *edge = static_cast<int>(bytes / whole.itemsize());
  }
  auto part = part_of(whole, inner, s);
  return part ? std::optional(mx::view(*part, a.dtype(), s)) : std::nullopt;
}

std::optional<array> part_of(const array& a, const Box& box, mx::StreamOrDevice s) {
  bool is_whole = std::all_of(box.from.begin(), box.from.end(), [](int at) { return at == 0; }) && box.to == a.shape();
  if (is_whole) {
    return a;
  }
  switch (kind_of(a)) {
    case Kind::file:
      return slice_file_tensor(a, box);
    case Kind::each:
      return part_of_each(a, box, s);
    case Kind::joined:
      return part_of_joined(a, box, s);
    case Kind::reshaped:
      return part_of_reshaped(a, box, s);
    case Kind::spread:
      return part_of_spread(a, box, s);
    case Kind::stepped:
      return part_of_stepped(a, box, s);
    case Kind::turned:
      return part_of_turned(a, box, s);
    case Kind::viewed:
      return part_of_viewed(a, box, s);
    default:
      return std::nullopt;
  }
}

} // namespace

bool is_in_files(const array& a) {
  auto kind = kind_of(a);
  if (kind == Kind::file || kind == Kind::other) {
    return kind == Kind::file;
  }
  // Of a product only the first operand: to look at both of n squares of squares would take 2ⁿ steps.
  auto& operands = a.inputs();
  auto last = kind == Kind::each ? operands.begin() + 1 : operands.end();
  return std::all_of(operands.begin(), last, is_in_files);
}

std::optional<array> slice_in_files(const array& a, const Box& box, mx::StreamOrDevice s) {
  bool is_empty = !std::equal(box.from.begin(), box.from.end(), box.to.begin(), std::less<>());
  return is_empty || !is_in_files(a) ? std::nullopt : part_of(a, box, s);
}

} // namespace mlxlm
