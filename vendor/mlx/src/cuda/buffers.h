// Where MLX's arrays are on a GPU, and ways between host and GPU that move no pages. MLX keeps what the host writes in memory whose
// pages move to whoever looks at it, and moves there what the host reads: a kernel that finds its pages elsewhere waits longer than a
// layer takes.
#pragma once

#include "abi.h"

namespace mlxlm::cuda {

// As MLX's CudaBuffer is.
struct GpuBuffer {
  void* data;
  size_t size;
  int device; // -1: memory that the host reads as well
};

// Where an array's numbers are on the GPU.
void* gpu_address(const array& a);

// An array of the host that a GPU reads where it is, for what is read a few times; of no number yet. Nothing where there is no GPU, or the
// array is a large one.
std::optional<array> pinned_array(const mx::Shape& shape, mx::Dtype dtype);

// Copies numbers of an array that has been computed and lies in rows: `count` of them from number `first` on, or all.
void copy_to_host(const array& a, void* destination, size_t first, size_t count);
void copy_to_host(const array& a, void* destination);

} // namespace mlxlm::cuda
