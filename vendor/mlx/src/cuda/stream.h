// Products of one row with a matrix that streams through shared memory: how matrices are cut for it.
#pragma once

#include "cpu/token_primitives.h"

namespace mlxlm::cuda {

// What a GPU has for kernels that stream weights: they need one that copies by itself (Hopper and newer).
struct StreamingGpu {
  int multiprocessors;
  int shared_memory; // bytes that a block can have
};
// Nothing where the device is none, or MLXLM_CUDA_KERNELS is 0.
std::optional<StreamingGpu> streaming_gpu(mx::StreamOrDevice s);

// Its threads: of the warp that copies, and of those that multiply.
constexpr int stream_warps = 8;
constexpr int stream_threads = 32 * (stream_warps + 1);

// A matrix (rows, columns) as it is stored: 16 bits as it is, 4 and 8 affine.
struct StreamMatrix {
  int bits;
  int group;
  int rows;
  int columns;

  auto operator<=>(const StreamMatrix&) const = default;
  bool packed() const {
    return bits != 16;
  }
  int groups() const {
    return packed() ? columns / group : 0;
  }
};

// How it goes through the ring: `tile` rows and a `cuts`-th of the columns a slot.
struct StreamCut {
  int tile;
  int cuts;
  int slot_bytes;
};
// Nothing where there is no such cut.
std::optional<StreamCut> stream_cut(const StreamMatrix& matrix, const StreamingGpu& gpu);

// Slots that find room beside `fixed` bytes of a block's shared memory; 0 where they are too few.
int stream_slots(int slot_bytes, int fixed, const StreamingGpu& gpu);

// Bytes ahead of the slots, and what a block keeps beside them: sums of groups, and of warps.
int stream_fixed_bytes(int groups);

// The ring and the products, as a kernel's header.
std::string stream_header();

// Whether the kernels can read this array as it lies: it is there, in rows, and starts at a multiple of 16 bytes.
bool lies_ready(const array& a);

// A matrix, or a stack of them (`axes` 2 or 3), whose rows have so many columns, as the kernels stream it: in numbers of this
// dtype, or affine in 4 or 8 bits. Nothing where they do not read it. The bias of its layer is not looked at.
std::optional<StreamMatrix> stream_matrix(const cpu::Matrix& given, int axes, int columns, mx::Dtype dtype);

bool takes_stream_row(
    const array& x, const array& w, const array& scales, const array& biases, int group_size, int bits,
    mx::StreamOrDevice s);
// x (…, K) of one row times w (N, K) → (…, N)
array stream_row(
    const array& x, const array& w, const array& scales, const array& biases, int group_size, int bits,
    mx::StreamOrDevice s);

} // namespace mlxlm::cuda
