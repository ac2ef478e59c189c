// One token through a layer, or through its attention, as one CUDA kernel: cpu/token_primitives.h says what these compute.
#pragma once

#include "cpu/token_primitives.h"

namespace mlxlm::cuda {

// Each gives nothing where no kernel takes these: on other GPUs than those of `streaming_gpu`, for matrices that it can't cut.
std::optional<array> attend_token(const array& x, const cpu::TokenAttention& attention, mx::StreamOrDevice s);
std::vector<array> layer_token(
    const array& x, const std::optional<array>& delta, const cpu::TokenLayer& layer, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
