// How the processes of a group find each other.
#pragma once

#include <string>
#include <vector>

namespace mlxlm {

struct MeshOptions {
  int rank;
  std::vector<std::string> addresses; // "host:port" of each rank
  std::string key;                    // who does not say it is no member
  double seconds;                     // how long to wait for the others
};

// Two sockets to another rank; -1 where it is this one.
struct Connection {
  int messages = -1;
  // Nothing is ever sent on it, so the system asks by itself whether the other host is there. Where messages are under way it
  // only sends them again, and a host that vanished looks like a rank that computes for long.
  int pulse = -1;
};

// Connections to every other rank, by rank. Throws std::runtime_error that names a rank which did not come.
std::vector<Connection> connect_members(const MeshOptions& options);

} // namespace mlxlm
