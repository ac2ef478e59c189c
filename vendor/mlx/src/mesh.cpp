#include "mesh.h"

#include <arpa/inet.h>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdexcept>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 // macOS: SO_NOSIGPIPE is set instead
#endif

namespace mlxlm {
namespace {

// A host that vanished without a word is noticed after so many seconds.
constexpr int silence = 8;

// Waiting in the kernel costs a wake-up of 10 to 50 µs, so a message is looked for without it first.
constexpr double patience = 30e-6;

constexpr uint32_t magic = 0x4d584c4d;

// What both sides say first.
struct Hello {
  uint32_t magic;
  uint32_t rank;
  uint32_t size;
  char key[68];
};

// What precedes each message. `lost` is -1, or the rank whose loss ends the mesh.
struct Header {
  int32_t lost;
  uint32_t magic;
  uint64_t bytes;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string reason_of(int error) {
  return std::generic_category().message(error);
}

struct Resolved {
  sockaddr_storage address{};
  socklen_t length = 0;
  int family = 0;
};

// "host:port", or "[v6]:port".
Resolved resolve(const std::string& text) {
  auto colon = text.rfind(':');
  if (colon == std::string::npos) {
    throw std::invalid_argument("the address " + text + " has no port");
  }
  std::string host = text.substr(0, colon);
  std::string port = text.substr(colon + 1);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  int code = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (code != 0) {
    throw std::runtime_error("the address " + text + " is not known: " + gai_strerror(code));
  }
  Resolved result;
  std::memcpy(&result.address, found->ai_addr, found->ai_addrlen);
  result.length = static_cast<socklen_t>(found->ai_addrlen);
  result.family = found->ai_family;
  freeaddrinfo(found);
  return result;
}

void set(int socket, int level, int name, int value) {
  setsockopt(socket, level, name, &value, sizeof(value));
}

int open_socket(int family) {
  int made = ::socket(family, SOCK_STREAM, 0);
  if (made < 0) {
    throw std::runtime_error("no socket: " + reason_of(errno));
  }
  fcntl(made, F_SETFD, FD_CLOEXEC);
  return made;
}

void prepare(int socket) {
  fcntl(socket, F_SETFD, FD_CLOEXEC);
  fcntl(socket, F_SETFL, fcntl(socket, F_GETFL, 0) | O_NONBLOCK);
  set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef SO_NOSIGPIPE
  set(socket, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
#ifdef TCP_KEEPIDLE
  set(socket, IPPROTO_TCP, TCP_KEEPIDLE, 2);
#elif defined(TCP_KEEPALIVE)
  set(socket, IPPROTO_TCP, TCP_KEEPALIVE, 2);
#endif
#ifdef TCP_KEEPINTVL
  set(socket, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set(socket, IPPROTO_TCP, TCP_KEEPCNT, silence - 2);
#endif
#ifdef TCP_USER_TIMEOUT
  set(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, silence * 1000);
#endif
}

bool again(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

// Waits until the socket is ready; false where the time is over.
bool wait_for(int socket, short events, double deadline) {
  pollfd one{socket, events, 0};
  int left = static_cast<int>((deadline - now()) * 1000);
  return left > 0 && poll(&one, 1, left) > 0;
}

// All bytes of a small message, or false.
bool transfer(int socket, void* data, size_t bytes, bool sends, double deadline) {
  auto at = static_cast<char*>(data);
  while (bytes > 0) {
    ssize_t done = sends ? ::send(socket, at, bytes, MSG_NOSIGNAL) : ::recv(socket, at, bytes, 0);
    if (done > 0) {
      at += done;
      bytes -= static_cast<size_t>(done);
    } else if (done == 0 || !again(errno) || !wait_for(socket, sends ? POLLOUT : POLLIN, deadline)) {
      return false;
    }
  }
  return true;
}

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
    : rank_(options.rank),
      addresses_(options.addresses),
      key_(options.key),
      deadline_(now() + options.seconds),
      sockets_(options.addresses.size(), -1) {
  if (rank_ < 0 || rank_ >= size()) {
    throw std::invalid_argument(
        "rank " + std::to_string(rank_) + " of a group of " + std::to_string(size()) + " processes");
  }
  if (key_.size() >= sizeof(Hello::key)) {
    throw std::invalid_argument("the group's key is too long");
  }
  try {
    listen();
    for (int other = 0; other < rank_; ++other) {
      sockets_[other] = connect_to(other);
    }
    for (int left = size() - 1 - rank_; left > 0; --left) {
      accept_one();
    }
  } catch (...) {
    for (int socket : sockets_) {
      if (socket >= 0) close(socket);
    }
    if (listener_ >= 0) close(listener_);
    throw;
  }
  close(listener_);
  listener_ = -1;
}

Mesh::~Mesh() {
  for (int socket : sockets_) {
    if (socket >= 0) close(socket);
  }
}

void Mesh::listen() {
  auto own = resolve(addresses_[rank_]);
  listener_ = open_socket(own.family);
  set(listener_, SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind(listener_, reinterpret_cast<sockaddr*>(&own.address), own.length) != 0 || ::listen(listener_, 128) != 0) {
    throw std::runtime_error("rank " + std::to_string(rank_) + " cannot listen at " + addresses_[rank_] + ": " + reason_of(errno));
  }
  fcntl(listener_, F_SETFL, fcntl(listener_, F_GETFL, 0) | O_NONBLOCK);
}

int Mesh::connect_to(int other) {
  auto there = resolve(addresses_[other]);
  while (true) {
    int socket = open_socket(there.family);
    prepare(socket);
    int error = 0;
    if (::connect(socket, reinterpret_cast<sockaddr*>(&there.address), there.length) != 0) {
      error = errno;
      if (error == EINPROGRESS && wait_for(socket, POLLOUT, deadline_)) {
        socklen_t length = sizeof(error);
        getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &length);
      }
    }
    int heard = other;
    if (error == 0) {
      try {
        greet(socket, other, heard);
        return socket;
      } catch (...) {
        close(socket);
        throw;
      }
    }
    close(socket);
    if (now() >= deadline_) {
      throw std::runtime_error(
          "rank " + std::to_string(other) + " did not answer at " + addresses_[other] + ": " + reason_of(error));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

// The next member that comes. Others are turned away.
int Mesh::accept_one() {
  while (wait_for(listener_, POLLIN, deadline_)) {
    int socket = ::accept(listener_, nullptr, nullptr);
    if (socket < 0) continue;
    prepare(socket);
    int heard = -1;
    try {
      greet(socket, -1, heard);
    } catch (const std::exception&) {
      close(socket);
      continue;
    }
    sockets_[heard] = socket;
    return heard;
  }
  for (int other = rank_ + 1; other < size(); ++other) {
    if (sockets_[other] < 0) {
      throw std::runtime_error(
          "rank " + std::to_string(other) + " (" + addresses_[other] + ") did not come to " + addresses_[rank_]);
    }
  }
  throw std::runtime_error("a member of the group did not come");
}

// Both say who they are; `expected` is -1 where that is not known yet.
void Mesh::greet(int socket, int expected, int& rank) {
  Hello own{};
  own.magic = magic;
  own.rank = static_cast<uint32_t>(rank_);
  own.size = static_cast<uint32_t>(size());
  std::memcpy(own.key, key_.data(), key_.size());
  // A stranger who says nothing holds up nobody for long.
  double limit = expected >= 0 ? deadline_ : std::min(deadline_, now() + 2);
  Hello heard{};
  bool connects = expected >= 0;
  bool isDone = connects
      ? transfer(socket, &own, sizeof(own), true, limit) && transfer(socket, &heard, sizeof(heard), false, limit)
      : transfer(socket, &heard, sizeof(heard), false, limit);
  bool belongs = isDone && heard.magic == magic && heard.size == own.size &&
      std::memcmp(heard.key, own.key, sizeof(own.key)) == 0;
  int said = static_cast<int>(heard.rank);
  if (belongs) {
    belongs = connects ? said == expected : said > rank_ && said < size() && sockets_[said] < 0;
  }
  if (belongs && !connects) belongs = transfer(socket, &own, sizeof(own), true, limit);
  if (!belongs) {
    throw std::runtime_error(
        connects ? "what answers at " + addresses_[expected] + " is not rank " + std::to_string(expected) + " of this group"
                 : "a stranger connected");
  }
  rank = said;
}

void Mesh::fail(const std::string& reason) {
  failure_ = reason;
  throw std::runtime_error(failure_);
}

// Tells the others, so that all name the same rank.
void Mesh::lost(int rank) {
  Header last{rank, magic, 0};
  for (int other = 0; other < size(); ++other) {
    if (sockets_[other] < 0) continue;
    if (other != rank) ::send(sockets_[other], &last, sizeof(last), MSG_NOSIGNAL);
    shutdown(sockets_[other], SHUT_WR);
  }
  fail("the connection to rank " + std::to_string(rank) + " (" + addresses_[rank] + ") was lost");
}

// Sends and receives what can be without waiting. Whether anything moved.
bool Mesh::advance(Leg& leg) {
  int socket = sockets_[leg.rank];
  bool moved = false;
  auto ended = [&](ssize_t done) {
    if (done > 0) return false;
    if (done < 0 && again(errno)) return true;
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
    if (done <= 0 && !again(errno)) {
      // The last words of a rank that failed are still to be read.
      if (!leg.receives()) lost(leg.rank);
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

  std::vector<pollfd> waits;
  double since = now();
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
      since = now();
      continue;
    }
    if (now() - since < patience) {
      std::this_thread::yield();
      continue;
    }
    waits.clear();
    for (const auto& leg : legs) {
      short events = static_cast<short>((leg.sends() ? POLLOUT : 0) | (leg.receives() ? POLLIN : 0));
      if (events) waits.push_back({sockets_[leg.rank], events, 0});
    }
    poll(waits.data(), waits.size(), -1);
  }
}

} // namespace mlxlm
