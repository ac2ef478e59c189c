// What recurrent layers do between their products: short convolutions, and states that tokens fade, write to and read
// from. A state is a matrix a head, whose rows do not know each other. No MLX here.
#pragma once

#include <cstdint>

#include "cpu/dtypes.h"
#include "cpu/isa.h"

namespace mlxlm::cpu {

// Numbers of one kind.
struct Numbers {
  Float type;
  const void* data; // may be null where something is optional
};

// (batch, tokens, …), the last axis in order; steps in numbers.
struct TokenRows {
  Float type;
  const void* data; // may be null where something is optional
  int64_t batch_step;
  int64_t token_step;
};

constexpr int64_t most_taps = 16;

// y = silu?(Σ_j weight[j] · (opening · x)[t - taps + 1 + j] + bias) · gate, for each channel.
struct Convolution {
  int64_t batch;
  int64_t tokens;
  int64_t channels;
  int64_t taps; // up to most_taps
  Float type; // of x, opening, gate, what was before, and the results
  TokenRows x;
  TokenRows opening; // may be null
  TokenRows gate; // may be null
  const void* before; // (batch, taps - 1, channels): inputs before the first; null for zeros
  Numbers weight; // (channels, taps)
  Numbers bias; // (channels), may be null
  const bool* own; // (batch, tokens): others count as zeros. Null for all
  const int32_t* lengths; // (batch): how many tokens are a row's own. Null for all
  bool silu;
  void* y; // (batch, tokens, channels)
  void* after; // (batch, taps - 1, channels): what the next call looks back at
};

// How a token changes a state S, whose rows have one entry for each of a key's:
//   write   S ← S w + v kᵀ
//   delta   S ← S w;  S ← S + β (v - S k) kᵀ
//   general S ← S w;  S ← S + (S a) bᵀ + v kᵀ
// and y = S q.
enum class Rule : uint8_t { write, delta, general };

// Keys are padded with zeros to a multiple of so many: whole vectors of every instruction set.
constexpr int64_t key_padding = 16;

inline int64_t padded(int64_t dims) {
  return (dims + key_padding - 1) / key_padding * key_padding;
}

// Some tokens of one head, all in float32; `width` is the padded length of a key.
struct Tokens {
  Rule rule;
  bool by_channel; // whether each entry of a row fades at a rate of its own
  int64_t count;
  int64_t dims; // entries of a state's row
  int64_t rows;
  const float* fades; // w: (count) or (count, width)
  const float* keys; // k: (count, width)
  const float* queries; // q: (count, width)
  const float* readers; // a: (count, width), general only
  const float* changes; // b: (count, width), general only
  const float* strengths; // β: (count), delta only
  const float* values; // v: (count, rows)
  float* y; // (count, rows)
  float* state; // (rows, dims)
};

// What is compiled per instruction set.
struct RecurrenceKernels {
  // Channels [from, to) of tokens [first, last) of one batch row; `taps` has room for taps · (to - from) numbers.
  void (*convolve)(
      const Convolution& c, int64_t row, int64_t first, int64_t last, int64_t from, int64_t to, float* taps);
  // Fills `after` of one batch row.
  void (*look_back)(const Convolution& c, int64_t row);
  // out = x in float32, zeros up to `width`
  void (*widen)(Float type, const void* x, int64_t count, int64_t width, float* out);
  // The same, of Euclidean length `length`; 10⁻⁶ is added to its own, squared.
  void (*stretch)(Float type, const void* x, int64_t count, int64_t width, float length, float* out);
  // out = one column of `count` tokens from `token` on
  void (*gather)(const TokenRows& rows, int64_t row, int64_t token, int64_t count, int64_t column, float* out);
  // out = e^x
  void (*exponentiate)(const float* x, int64_t count, float* out);
  // out = log(1 + e^x)
  void (*soften)(const float* x, int64_t count, float* out);
  void (*advance)(const Tokens& tokens);
  // out = x / √(mean(x²) + eps) · weight · silu(gate); without eps and weight where `weight` is null, without gate where
  // `gate` is null.
  void (*finish)(
      const float* x, int64_t count, Numbers weight, float eps, Numbers gate, Float type, void* out);
};

MLXLM_PER_ISA(RecurrenceKernels, recurrence_kernels)

// Gated DeltaNet between its projections: queries, keys and values by heads, the rule, a gated norm.
struct DeltaHeads {
  int64_t batch;
  int64_t tokens;
  int64_t key_heads;
  int64_t value_heads; // a multiple of the keys'
  int64_t key_dims;
  int64_t value_dims;
  TokenRows mixed; // queries, keys, values: (batch, tokens, 2 key_heads key_dims + value_heads value_dims)
  TokenRows gate; // (batch, tokens, value_heads value_dims)
  TokenRows strength; // (batch, tokens, value_heads), ahead of the sigmoid
  TokenRows decay; // (batch, tokens, value_heads), ahead of softplus
  Numbers rates; // log of each head's decay rate, (value_heads)
  Numbers decay_bias; // (value_heads)
  Numbers weight; // of the norm, (value_dims)
  float eps;
  const bool* own; // (batch, tokens), null for all
  float* state; // (batch, value_heads, value_dims, key_dims), read and written
  Float type;
  void* out; // (batch, tokens, value_heads value_dims)
};

// The rules themselves, by heads: `general` with readers, `delta` with strengths, else `write`.
struct RuleHeads {
  int64_t batch;
  int64_t tokens;
  int64_t key_heads;
  int64_t value_heads; // a multiple of the keys'
  int64_t key_dims;
  int64_t value_dims;
  TokenRows queries; // (batch, tokens, key_heads key_dims), and so readers and changes
  TokenRows keys;
  TokenRows values; // (batch, tokens, value_heads value_dims)
  TokenRows readers; // may be null
  TokenRows changes; // those of readers; may be null: they are the keys then
  TokenRows strengths; // (batch, tokens, value_heads), may be null
  TokenRows decay; // logarithms, (batch, tokens, value_heads), or with `by_channel` one for each entry of a key
  bool by_channel;
  float query_length; // what queries and keys are stretched to; 0 where they stay
  float key_length;
  const bool* own; // (batch, tokens), null for all
  float* state; // (batch, value_heads, value_dims, key_dims), read and written
  Float type;
  void* out; // (batch, tokens, value_heads value_dims)
};

// Mamba-2 between its convolution and its norm: h ← e^(Δ A) h + Δ x Bᵀ;  y = h C + D x, gated where there is a gate.
struct StateSpaceHeads {
  int64_t batch;
  int64_t tokens;
  int64_t heads;
  int64_t groups; // of heads that share B and C
  int64_t head_dims;
  int64_t state_dims;
  TokenRows mixed; // x, B, C: (batch, tokens, heads head_dims + 2 groups state_dims)
  TokenRows steps; // (batch, tokens, heads), ahead of their bias and softplus
  TokenRows gate; // (batch, tokens, heads head_dims), may be null
  Numbers rates; // (heads)
  Numbers passing; // D: (heads)
  Numbers step_bias; // (heads)
  float least_step;
  float most_step;
  const bool* own; // (batch, tokens), null for all
  float* state; // (batch, heads, head_dims, state_dims), read and written
  Float type;
  void* out; // (batch, tokens, heads head_dims)
};

void run(const Convolution& convolution);
void run(const DeltaHeads& heads);
void run(const RuleHeads& heads);
void run(const StateSpaceHeads& heads);

} // namespace mlxlm::cpu
