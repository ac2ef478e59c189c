// Texts of kernels that a program names instead of having them: MLX hashes a program's whole text at every launch.
#pragma once

#include <string>

namespace mlxlm::cuda {

// What stands for the text in a program; the text itself before NVRTC was first called through cuda/nvrtc_cache.cpp.
std::string named_text(const std::string& text);

// The program with the texts in place of what stands for them, for NVRTC.
std::string with_texts(const std::string& program);

} // namespace mlxlm::cuda
