// TCP connections between all processes of a group, each with each.
#pragma once

#include <cstddef>
#include <mutex>
#include <string>
#include <vector>

#include "mesh_members.h"

namespace mlxlm {

class Mesh {
 public:
  struct Outgoing {
    int rank;
    const void* data;
    size_t bytes;
  };
  struct Incoming {
    int rank;
    void* data;
    size_t bytes;
  };

  // Connects to every other rank. Throws std::runtime_error that names the rank which did not come.
  explicit Mesh(const MeshOptions& options);
  ~Mesh();
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;

  int rank() const {
    return rank_;
  }
  int size() const {
    return static_cast<int>(sockets_.size());
  }

  // Sends and receives all of it, at most one message each way with a rank. A rank that is lost, or whose message has
  // another length, ends the mesh: this call and all later ones throw, here and on the other ranks.
  void exchange(const std::vector<Outgoing>& out, const std::vector<Incoming>& in);

 private:
  struct Leg;
  [[noreturn]] void fail(const std::string& reason);
  void lost(int rank);
  int last_words(int rank);
  bool advance(Leg& leg);
  void wait(const std::vector<Leg>& legs);

  int rank_;
  std::vector<std::string> addresses_;
  std::vector<Connection> sockets_; // by rank
  std::mutex one_at_a_time_;
  std::string failure_;
};

} // namespace mlxlm
