// One token of each of several sequences through attention to their caches, as one CUDA kernel.
#pragma once

#include "cpu/token_primitives.h"

namespace mlxlm::cuda {

// Where the sequences' rows lie, in order of time: from `starts` (B) to `used`, behind which a token's own go. What comes behind the last
// row of keys lies from the first on. `positions` (B): of the tokens.
struct SequenceRows {
  int used;
  std::vector<int> starts;
  std::vector<int> positions;
};

// What attention to several caches is told beside the heads: weights (D) of the norms over heads, wavelengths.
struct AttendedRows {
  array keys;
  array values;
  std::optional<array> query_weight;
  std::optional<array> key_weight;
  std::optional<array> freqs;
  cpu::Heads heads;
  SequenceRows sequences;
};

// Whether a kernel takes these, joint being of this shape and dtype.
bool takes_attend_rows(const mx::Shape& joint, mx::Dtype dtype, const AttendedRows& rows, mx::StreamOrDevice s);

// joint (B, 1, (H + 2 Hkv) D), keys and values (B, Hkv, S, D) → (B, 1, H D). A token's key and value are written in place, as by
// cpu::attend_token. Nothing where no kernel takes these.
std::optional<array> attend_rows(const array& joint, const AttendedRows& rows, mx::StreamOrDevice s);

// The same for callers that have asked takes_attend_rows. Joint may come in parts, (joint_parts, B, (H + 2 Hkv) D) in float32.
array attend_rows_to(const array& joint, int joint_parts, const AttendedRows& rows, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
