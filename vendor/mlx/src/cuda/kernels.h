// Kernels for decoding one token on CUDA. Each comes with the question whether it takes these arguments: a CUDA device,
// shapes that it is made for, and no transformation under way (kernels have no gradient).
#pragma once

#include "abi.h"

namespace mlxlm::cuda {

bool takes_add_rms_norm(const array& x, const array& delta, const array& weight, mx::StreamOrDevice s);
std::vector<array> add_rms_norm(
    const array& x, const array& delta, const array& weight, float eps, mx::StreamOrDevice s);
// Of parts of delta in float32, (parts, …), where the kernel takes delta itself.
std::vector<array> add_parts_rms_norm(
    const array& x, const array& parts, const array& weight, float eps, mx::StreamOrDevice s);

bool takes_rotate_heads(const array& joint, int dims, int rotated, mx::StreamOrDevice s);
std::vector<array> rotate_heads(
    const array& joint, int heads, int kv_heads, const std::optional<array>& query_weight,
    const std::optional<array>& key_weight, float eps, int rotated, std::optional<float> base, float scale, int offset,
    const std::optional<array>& freqs, mx::StreamOrDevice s);

bool takes_quantized_row(
    const array& x, const array& w, const array& scales, const array& biases, int group_size, int bits,
    mx::StreamOrDevice s);
array quantized_row(
    const array& x, const array& w, const array& scales, const array& biases, int group_size, int bits,
    mx::StreamOrDevice s);

bool takes_mask_logits(const array& logits, mx::StreamOrDevice s);
array mask_logits(const array& logits, const array& bits, mx::StreamOrDevice s);

// As cpu::argmax. MLX's own takes as long as a layer for the logits of a large vocabulary.
bool takes_argmax(const array& x, int axis, mx::StreamOrDevice s);
array argmax(const array& x, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
