// One token of each of several sequences through attention to their caches, as one CUDA kernel.
#pragma once

#include "cpu/token_primitives.h"

namespace mlxlm::cuda {

// What attention to several caches is told beside the heads: weights (D) of the norms over heads, wavelengths, and each
// sequence's first row (B).
struct AttendedRows {
  array keys;
  array values;
  std::optional<array> query_weight;
  std::optional<array> key_weight;
  std::optional<array> freqs;
  cpu::Heads heads;
  std::vector<int> starts;
};

// Whether a kernel takes these, joint being of this shape and dtype.
bool takes_attend_rows(const mx::Shape& joint, mx::Dtype dtype, const AttendedRows& rows, mx::StreamOrDevice s);

// joint (B, 1, (H + 2 Hkv) D), keys and values (B, Hkv, S, D) → (B, 1, H D). A sequence's position is the number of its rows. Its key
// and value are written to row `used` in place, as by cpu::attend_token. Nothing where no kernel takes these.
std::optional<array> attend_rows(const array& joint, const AttendedRows& rows, mx::StreamOrDevice s);

// The same for callers that have asked takes_attend_rows. Joint may come in parts, (joint_parts, B, (H + 2 Hkv) D) in float32.
array attend_rows_to(const array& joint, int joint_parts, const AttendedRows& rows, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
