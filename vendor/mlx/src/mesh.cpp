#include "mesh.h"

#include <cerrno>
#include <cstdint>
#include <poll.h>
#include <stdexcept>
#include <thread>
#include <unistd.h>
#include <utility>

#include "tcp.h"

namespace mlxlm {
namespace {

// Waiting in the kernel costs a wake-up of 10 to 50 µs, so a message is looked for without it first.
constexpr double patience = 30e-6;

constexpr uint32_t magic = 0x4d584c4d;

// What precedes each message. `lost` is -1, or the rank whose loss ends the mesh.
struct Header {
  int32_t lost;
  uint32_t magic;
  uint64_t bytes;
};

} // namespace

// What is under way with one rank.
struct Mesh::Leg {
  int rank;
  Header announced{-1, magic, 0};
  size_t announced_left = 0;
  const char* out = nullptr;
  size_t out_left = 0;
  Header heard{};
  size_t heard_left = 0;
  size_t expected = 0;
  char* in = nullptr;
  size_t in_left = 0;

  bool sends() const {
    return announced_left + out_left > 0;
  }
  bool receives() const {
    return heard_left + in_left > 0;
  }
};

Mesh::Mesh(const MeshOptions& options)
    : rank_(options.rank), addresses_(options.addresses), sockets_(connect_members(options)) {}

Mesh::~Mesh() {
  for (auto [messages, pulse] : sockets_) {
    if (messages >= 0) close(messages);
    if (pulse >= 0) close(pulse);
  }
}

void Mesh::fail(const std::string& reason) {
  failure_ = reason;
  throw std::runtime_error(failure_);
}

// Tells the others, so that all name the same rank.
void Mesh::lost(int rank) {
  Header last{rank, magic, 0};
  for (int other = 0; other < size(); ++other) {
    int socket = sockets_[other].messages;
    if (socket < 0) continue;
    if (other != rank) ::send(socket, &last, sizeof(last), MSG_NOSIGNAL);
    shutdown(socket, SHUT_WR);
  }
  fail("the connection to rank " + std::to_string(rank) + " (" + addresses_[rank] + ") was lost");
}

// The rank whose loss a rank names that takes no more; itself where it says nothing.
int Mesh::last_words(int rank) {
  Header last{};
  bool says = ::recv(sockets_[rank].messages, &last, sizeof(last), 0) == sizeof(last) && last.magic == magic;
  return says && last.lost >= 0 && last.lost < size() && last.lost != rank_ ? last.lost : rank;
}

// Sends and receives what can be without waiting. Whether anything moved.
bool Mesh::advance(Leg& leg) {
  int socket = sockets_[leg.rank].messages;
  bool moved = false;
  auto ended = [&](ssize_t done) {
    if (done > 0) return false;
    if (done < 0 && tcp::again(errno)) return true;
    lost(leg.rank);
    return true;
  };
  while (leg.receives()) {
    bool isHeader = leg.heard_left > 0;
    char* at = isHeader ? reinterpret_cast<char*>(&leg.heard) + sizeof(Header) - leg.heard_left : leg.in;
    size_t& left = isHeader ? leg.heard_left : leg.in_left;
    ssize_t done = ::recv(socket, at, left, 0);
    if (ended(done)) break;
    moved = true;
    left -= static_cast<size_t>(done);
    if (!isHeader) {
      leg.in += done;
    } else if (left == 0) {
      if (leg.heard.lost >= 0 && leg.heard.lost < size()) lost(leg.heard.lost);
      if (leg.heard.magic != magic || leg.heard.bytes != leg.expected) {
        fail(
            "rank " + std::to_string(leg.rank) + " is at another step: it sends " + std::to_string(leg.heard.bytes) +
            " bytes where " + std::to_string(leg.expected) + " are expected");
      }
    }
  }
  while (leg.sends()) {
    bool isHeader = leg.announced_left > 0;
    const char* at =
        isHeader ? reinterpret_cast<const char*>(&leg.announced) + sizeof(Header) - leg.announced_left : leg.out;
    size_t& left = isHeader ? leg.announced_left : leg.out_left;
    ssize_t done = ::send(socket, at, left, MSG_NOSIGNAL);
    if (done <= 0 && !tcp::again(errno)) {
      // The last words of a rank that failed are still to be read.
      if (!leg.receives()) lost(last_words(leg.rank));
      leg.announced_left = leg.out_left = 0;
      break;
    }
    if (done <= 0) break;
    moved = true;
    left -= static_cast<size_t>(done);
    if (!isHeader) leg.out += done;
  }
  return moved;
}

void Mesh::exchange(const std::vector<Outgoing>& out, const std::vector<Incoming>& in) {
  std::lock_guard<std::mutex> alone(one_at_a_time_);
  if (!failure_.empty()) {
    throw std::runtime_error(failure_);
  }
  std::vector<Leg> legs;
  auto leg_of = [&](int rank) -> Leg& {
    for (auto& leg : legs) {
      if (leg.rank == rank) return leg;
    }
    if (rank < 0 || rank >= size() || rank == rank_) {
      throw std::invalid_argument("rank " + std::to_string(rank) + " is not another rank of the group");
    }
    legs.emplace_back();
    legs.back().rank = rank;
    return legs.back();
  };
  for (const auto& message : out) {
    auto& leg = leg_of(message.rank);
    leg.out = static_cast<const char*>(message.data);
    leg.out_left = message.bytes;
    leg.announced.bytes = message.bytes;
    leg.announced_left = sizeof(Header);
  }
  for (const auto& message : in) {
    auto& leg = leg_of(message.rank);
    leg.in = static_cast<char*>(message.data);
    leg.in_left = leg.expected = message.bytes;
    leg.heard_left = sizeof(Header);
  }

  double since = tcp::now();
  while (true) {
    bool isDone = true;
    bool moved = false;
    for (auto& leg : legs) {
      if (!leg.sends() && !leg.receives()) continue;
      moved = advance(leg) || moved;
      isDone = isDone && !leg.sends() && !leg.receives();
    }
    if (isDone) return;
    if (moved) {
      since = tcp::now();
      continue;
    }
    if (tcp::now() - since < patience) {
      std::this_thread::yield();
      continue;
    }
    wait(legs);
  }
}

// Until something can be sent or received, or a rank is gone.
void Mesh::wait(const std::vector<Leg>& legs) {
  std::vector<pollfd> waits;
  std::vector<int> ranks;
  for (const auto& leg : legs) {
    short events = static_cast<short>((leg.sends() ? POLLOUT : 0) | (leg.receives() ? POLLIN : 0));
    if (!events) continue;
    waits.push_back({sockets_[leg.rank].messages, events, 0});
    waits.push_back({sockets_[leg.rank].pulse, POLLIN, 0});
    ranks.push_back(leg.rank);
  }
  poll(waits.data(), waits.size(), -1);
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (!waits[2 * i + 1].revents) continue;
    int& pulse = sockets_[ranks[i]].pulse;
    char none;
    ssize_t done = ::recv(pulse, &none, 1, 0);
    if (done < 0 && tcp::again(errno)) continue;
    if (done < 0) lost(ranks[i]);
    // Its process has ended, and what it sent last is still to be read.
    close(std::exchange(pulse, -1));
  }
}

} // namespace mlxlm
