// Process groups for collectives.
#include "abi.h"
#include "mesh_group.h"

namespace mlxlm {
namespace {

std::vector<mx::distributed::Group>& groups() {
  static auto* made = new std::vector<mx::distributed::Group>();
  return *made;
}

int32_t add_group(mx::distributed::Group group) {
  groups().push_back(std::move(group));
  return static_cast<int32_t>(groups().size()) - 1;
}

} // namespace

std::optional<mx::distributed::Group> group_of(int32_t id) {
  if (id < 0) {
    return std::nullopt;
  }
  if (id >= static_cast<int32_t>(groups().size())) {
    throw std::invalid_argument("unknown group " + std::to_string(id));
  }
  return groups()[id];
}

} // namespace mlxlm

using namespace mlxlm;

extern "C" {

int32_t mlxlm_distributed_available(const char* backend) {
  return guarded([&] { return mx::distributed::is_available(std::string(backend)) ? 1 : 0; });
}

// The group of all processes, or of this one alone where nothing was launched and `strict` is false. Returns its id.
int32_t mlxlm_distributed_init(bool strict, const char* backend) {
  return guarded([&] { return add_group(mx::distributed::init(strict, backend)); });
}

// The group of the processes at these addresses ("host:port", by rank, each closed by a NUL), over TCP. Returns its id.
int32_t mlxlm_distributed_connect(int32_t rank, const char* addresses, int32_t length, const char* key, double seconds) {
  return guarded([&] { return add_group(mesh_group({rank, fields(addresses, length), key, seconds})); });
}

int32_t mlxlm_group_rank(int32_t group) {
  return guarded([&] { return group_of(group).value().rank(); });
}

int32_t mlxlm_group_size(int32_t group) {
  return guarded([&] { return group_of(group).value().size(); });
}

int32_t mlxlm_group_split(int32_t group, int32_t color, int32_t key) {
  return guarded([&] { return add_group(group_of(group).value().split(color, key)); });
}

} // extern "C"
