// Mamba's selective scan. No MLX here.
#pragma once

#include "cpu/recurrence.h"

namespace mlxlm::cpu {

// Mamba: a state of `dims` entries for each channel, h ← e^(-e^A Δ) h + Δ B x;  y = (C h + D x) silu(gate).
// Δ is softplus of what is given.
struct Scan {
  int64_t batch;
  int64_t tokens;
  int64_t channels;
  int64_t dims;
  TokenRows x; // (batch, tokens, channels)
  TokenRows steps; // (batch, tokens, channels)
  TokenRows entering; // B: (batch, tokens, dims)
  TokenRows reading; // C: (batch, tokens, dims)
  TokenRows gate; // (batch, tokens, channels)
  Numbers rates; // A: (channels, dims)
  Numbers passing; // D: (channels)
  const bool* own; // (batch, tokens), null for all
  float* state; // (batch, channels, dims), read and written
  Float type;
  void* y; // (batch, tokens, channels)
};

inline int64_t scan_buffer(const Scan& scan, int64_t channels) {
  return 2 * scan.dims * padded(channels) + 2 * padded(scan.dims);
}

// What is compiled per instruction set.
struct ScanKernels {
  // Channels [from, to) of one batch row; the buffer has room for scan_buffer(scan, to - from) numbers.
  void (*scan)(const Scan& scan, int64_t row, int64_t from, int64_t to, float* buffer);
};

MLXLM_PER_ISA(ScanKernels, scan_kernels)

void run(const Scan& scan);

} // namespace mlxlm::cpu
