// Recurrent layers on the CPU, each part in one pass and on all cores. Each comes with the question whether it takes these
// arguments: a CPU stream, numbers that it knows, and no transformation under way (these have no gradient). What their
// arguments are is said in ours.h, which has checked their shapes.
#pragma once

#include "recurrent.h"

namespace mlxlm::cpu {

bool takes_short_conv(const ours::ShortConv& c, mx::StreamOrDevice s);
std::vector<array> short_conv(const ours::ShortConv& c, mx::StreamOrDevice s);

bool takes_delta_heads(const ours::DeltaHeads& h, mx::StreamOrDevice s);
std::vector<array> delta_heads(const ours::DeltaHeads& h, mx::StreamOrDevice s);

bool takes_recurrence(const ours::Recurrence& r, mx::StreamOrDevice s);
std::vector<array> recurrence(const ours::Recurrence& r, mx::StreamOrDevice s);

bool takes_state_space(const ours::StateSpace& h, mx::StreamOrDevice s);
std::vector<array> state_space(const ours::StateSpace& h, mx::StreamOrDevice s);

bool takes_selective_scan(const ours::SelectiveScan& h, mx::StreamOrDevice s);
std::vector<array> selective_scan(const ours::SelectiveScan& h, mx::StreamOrDevice s);

} // namespace mlxlm::cpu
