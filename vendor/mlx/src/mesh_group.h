// MLX's process group over a mesh of TCP connections.
#pragma once

#include "abi.h"
#include "mesh.h"

namespace mlxlm {

mx::distributed::Group mesh_group(const MeshOptions& options);

} // namespace mlxlm
