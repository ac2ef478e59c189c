// Where the tensors of a safetensors file lie. The format: huggingface.co/docs/safetensors.
#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>

#include "file_reads.h"

namespace mlxlm {

// The first byte of each tensor, by its name, of a file whose header MLX has found sound.
std::unordered_map<std::string, size_t> places_of_tensors(OpenFile& file);

} // namespace mlxlm
