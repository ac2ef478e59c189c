// Attention for one instruction set.
#include "cpu/prompt_attention.h"
#include "cpu/token_attention.h"

namespace mlxlm::cpu::MLXLM_ISA {

const AttentionKernels attention_kernels = {tasks, attend, scratch_bytes, attend_one, combine};

} // namespace mlxlm::cpu::MLXLM_ISA
