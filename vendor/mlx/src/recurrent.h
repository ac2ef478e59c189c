// Operations of recurrent layers, with kernels of ours only: where none takes the arguments, the result is empty. All of
// them see tokens along axis 1, and know which of those are a row's own (B, T); others change no state.
#pragma once

#include "abi.h"

namespace mlxlm::ours {

// A short convolution of each channel along time, with gates before and behind it.
struct ShortConv {
  array x; // (B, T, C)
  std::optional<array> opening; // (B, T, C): x is multiplied by it
  std::optional<array> gate; // (B, T, C): the result is
  std::optional<array> before; // (B, K - 1, C): inputs before the first, zeros where absent
  array weight; // (C, K) or (C, K, 1)
  std::optional<array> bias; // (C)
  std::optional<array> own;
  std::vector<int> lengths; // how many tokens are each row's own; empty for all
  bool silu; // of the sum, ahead of the gate
};

// [y (B, T, C), after (B, K - 1, C)]
std::vector<array> short_conv(
    const array& x, const std::optional<array>& opening, const std::optional<array>& gate,
    const std::optional<array>& before, const array& weight, const std::optional<array>& bias,
    const std::optional<array>& own, const std::vector<int>& lengths, bool silu, mx::StreamOrDevice s);

// Gated DeltaNet between its convolution and its last projection.
struct DeltaHeads {
  array mixed; // queries, keys, values (B, T, 2 Hk Dk + Hv Dv)
  array gate; // (B, T, Hv Dv)
  array strength; // (B, T, Hv), ahead of the sigmoid
  array decay; // (B, T, Hv), ahead of its bias and softplus
  array rates; // log of each head's decay rate, (Hv)
  array decay_bias; // (Hv)
  array weight; // of the norm, (Dv)
  std::optional<array> state; // (B, Hv, Dv, Dk) float32, zeros where absent
  std::optional<array> own;
  int key_heads;
  float eps;

  int value_heads() const {
    return rates.shape(0);
  }
  int value_dims() const {
    return weight.shape(0);
  }
  int key_dims() const {
    return (mixed.shape(2) - value_heads() * value_dims()) / (2 * key_heads);
  }
  mx::Shape state_shape() const {
    return {mixed.shape(0), value_heads(), value_dims(), key_dims()};
  }
};

// Gated DeltaNet from its convolution to its last projection: `entering` (B, T, 2 Hk Dk + Hv Dv) passes a convolution and
// silu. [out (B, T, Hv Dv), after (B, K - 1, 2 Hk Dk + Hv Dv), state]
std::vector<array> delta_layer(
    const array& entering, const array& gate, const array& strength, const array& decay,
    const std::optional<array>& before, const array& conv_weight, const array& rates, const array& decay_bias,
    const array& weight, const std::optional<array>& state, const std::optional<array>& own,
    const std::vector<int>& lengths, int key_heads, float eps, mx::StreamOrDevice s);

// A state S (Dv, Dk) for each head of values, which a token changes by one of three rules:
//   with neither readers nor strength  S ← S w + v kᵀ
//   with strength                      S ← S w;  S ← S + β (v - S k) kᵀ
//   with readers                       S ← S w;  S ← S + (S a) bᵀ + v kᵀ, b = k where there are no changes
// and y = S q.
struct Recurrence {
  array queries; // (B, T, Hk, Dk)
  array keys; // (B, T, Hk, Dk)
  array values; // (B, T, Hv, Dv), Hv a multiple of Hk
  array decay; // log w: (B, T, Hv), or (B, T, Hv, Dk)
  std::optional<array> strength; // (B, T, Hv)
  std::optional<array> readers; // (B, T, Hk, Dk)
  std::optional<array> changes; // (B, T, Hk, Dk)
  std::optional<array> state; // (B, Hv, Dv, Dk) float32, zeros where absent
  std::optional<array> own;
  // What queries and keys are stretched to, 10⁻⁶ added to their own length, squared; 0: they stay as they are.
  float query_length;
  float key_length;

  mx::Shape state_shape() const {
    return {values.shape(0), values.shape(2), values.shape(3), keys.shape(3)};
  }
};

// [y (B, T, Hv, Dv) as queries are, state]
std::vector<array> recurrence(
    const array& queries, const array& keys, const array& values, const array& decay,
    const std::optional<array>& strength, const std::optional<array>& readers, const std::optional<array>& changes,
    const std::optional<array>& state, const std::optional<array>& own, float query_length, float key_length,
    mx::StreamOrDevice s);

// Mamba-2 between its convolution and its norm.
struct StateSpace {
  array mixed; // x, B, C: (B, T, H P + 2 G N)
  array steps; // (B, T, H), ahead of their bias and softplus
  std::optional<array> gate; // (B, T, H P): results are multiplied by its silu
  array rates; // log of each head's decay rate, (H)
  array passing; // D: what of x passes by, (H)
  array step_bias; // (H)
  std::optional<array> state; // (B, H, P, N) float32, zeros where absent
  std::optional<array> own;
  int groups;
  int head_dims;
  float least_step;
  float most_step;

  int heads() const {
    return rates.shape(0);
  }
  int state_dims() const {
    return (mixed.shape(2) - heads() * head_dims) / (2 * groups);
  }
  mx::Shape state_shape() const {
    return {mixed.shape(0), heads(), head_dims, state_dims()};
  }
};

// [y (B, T, H P), state]
std::vector<array> state_space(
    const array& mixed, const array& steps, const std::optional<array>& gate, const array& rates,
    const array& passing, const array& step_bias, const std::optional<array>& state, const std::optional<array>& own,
    int groups, int head_dims, float least_step, float most_step, mx::StreamOrDevice s);

// Mamba's scan, and the gate behind it.
struct SelectiveScan {
  array x; // (B, T, C)
  array steps; // (B, T, C), ahead of softplus
  array entering; // B: (B, T, N)
  array reading; // C: (B, T, N)
  array gate; // (B, T, C): results are multiplied by its silu
  array rates; // log of decay rates, (C, N)
  array passing; // D: (C)
  std::optional<array> state; // (B, C, N) float32, zeros where absent
  std::optional<array> own;

  mx::Shape state_shape() const {
    return {x.shape(0), x.shape(2), rates.shape(1)};
  }
};

// [y (B, T, C), state]
std::vector<array> selective_scan(
    const array& x, const array& steps, const array& entering, const array& reading, const array& gate,
    const array& rates, const array& passing, const std::optional<array>& state, const std::optional<array>& own,
    mx::StreamOrDevice s);

} // namespace mlxlm::ours
