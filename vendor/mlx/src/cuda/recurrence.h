// Recurrent layers on CUDA. Each comes with the question whether it takes these arguments; their shapes were checked.
#pragma once

#include "recurrent.h"

namespace mlxlm::cuda {

bool takes_short_conv(const ours::ShortConv& c, mx::StreamOrDevice s);
std::vector<array> short_conv(const ours::ShortConv& c, mx::StreamOrDevice s);

// One token, convolution and heads in one kernel: [out, after, state].
bool takes_delta_step(const ours::ShortConv& c, const ours::DeltaHeads& h, mx::StreamOrDevice s);
std::vector<array> delta_step(const ours::ShortConv& c, const ours::DeltaHeads& h, mx::StreamOrDevice s);

bool takes_recurrence(const ours::Recurrence& r, mx::StreamOrDevice s);
std::vector<array> recurrence(const ours::Recurrence& r, mx::StreamOrDevice s);

bool takes_state_space(const ours::StateSpace& h, mx::StreamOrDevice s);
std::vector<array> state_space(const ours::StateSpace& h, mx::StreamOrDevice s);

bool takes_selective_scan(const ours::SelectiveScan& h, mx::StreamOrDevice s);
std::vector<array> selective_scan(const ours::SelectiveScan& h, mx::StreamOrDevice s);

} // namespace mlxlm::cuda
