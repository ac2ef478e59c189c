// A launch of the library's own may begin while the one before it still computes, to fetch what that one does not write: CUDA's
// programmatic dependent launch. `cuda/kernel.cpp` sees by a kernel's text whether it may.
#pragma once

// Waits until the launch before has computed, and lets the next one begin. All blocks must come here, ahead of what they read of it and
// of all that they write.
#define MLXLM_BEHIND_LAUNCH                                    \
  "\n#if __CUDA_ARCH__ >= 900\n"                               \
  "  asm volatile(\"griddepcontrol.wait;\" ::: \"memory\");\n" \
  "  asm volatile(\"griddepcontrol.launch_dependents;\");\n"   \
  "#endif\n"
