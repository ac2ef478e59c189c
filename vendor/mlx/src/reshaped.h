// What a reshape, which keeps the order of the elements, makes of boxes and of strides. No axis may have the size 0.
#pragma once

#include <optional>
#include <vector>

#include "abi.h"

namespace mlxlm {

// a[from:to], steps of 1.
struct Box {
  mx::Shape from;
  mx::Shape to;
};

mx::Shape shape_of(const Box& box);

// Where elements are that a reshape has put elsewhere.
struct Reshaped {
  Box around; // the smallest box of whole rows that has them all
  mx::Shape groups; // its shape where the axes of each group that the reshape makes others of are one
  Box within; // they themselves in that shape
};

// The elements that are `box` in the shape `out`, in the shape `in`; nothing where there are others between them.
std::optional<Reshaped> before_reshape(const mx::Shape& in, const mx::Shape& out, const Box& box);

// From one element to the next along each axis of the shape `out`, where it is `strides` in the shape `in`; nothing where
// such steps differ.
std::optional<std::vector<size_t>>
reshaped_strides(const mx::Shape& in, const std::vector<size_t>& strides, const mx::Shape& out);

} // namespace mlxlm
