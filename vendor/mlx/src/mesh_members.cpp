// Each rank listens, connects to those before it, and takes those behind it in the order in which they come.
#include "mesh_members.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <stdexcept>
#include <thread>
#include <unistd.h>
#include <utility>

#include "tcp.h"

namespace mlxlm {
namespace {

// Whoever connects says who it is within so many seconds.
constexpr double introduction = 5;

// Of more that say nothing, those who came first are turned away.
constexpr size_t most_strangers = 256;

constexpr uint32_t magic = 0x4d584c48;

// What both sides say first.
struct Hello {
  uint32_t magic;
  uint32_t rank;
  uint32_t size;
  uint32_t is_pulse;
  char key[68];
};

class Members {
 public:
  explicit Members(const MeshOptions& options)
      : rank_(options.rank),
        addresses_(options.addresses),
        deadline_(tcp::now() + options.seconds),
        sockets_(options.addresses.size()) {
    if (rank_ < 0 || rank_ >= size()) {
      throw std::invalid_argument(
          "rank " + std::to_string(rank_) + " of a group of " + std::to_string(size()) + " processes");
    }
    if (options.key.size() >= sizeof(Hello::key)) {
      throw std::invalid_argument("the group's key is too long");
    }
    own_.magic = magic;
    own_.rank = static_cast<uint32_t>(rank_);
    own_.size = static_cast<uint32_t>(size());
    std::memcpy(own_.key, options.key.data(), options.key.size());
  }

  ~Members() {
    for (const auto& caller : callers_) close(caller.socket);
    for (auto [messages, pulse] : sockets_) {
      if (messages >= 0) close(messages);
      if (pulse >= 0) close(pulse);
    }
    if (listener_ >= 0) close(listener_);
  }

  std::vector<Connection> connect() {
    listen();
    for (int other = 0; other < rank_; ++other) {
      connect_to(other, false);
      connect_to(other, true);
    }
    accept_others();
    return std::exchange(sockets_, {});
  }

 private:
  // Somebody who connected and has not said yet who it is.
  struct Caller {
    int socket;
    double until;
    Hello said{};
    size_t heard = 0;
  };

  int size() const {
    return static_cast<int>(addresses_.size());
  }

  int& socket_of(int rank, bool is_pulse) {
    return is_pulse ? sockets_[rank].pulse : sockets_[rank].messages;
  }

  Hello hello(bool is_pulse) const {
    Hello said = own_;
    said.is_pulse = is_pulse;
    return said;
  }

  bool is_member(const Hello& said) const {
    return said.magic == magic && said.size == own_.size && std::memcmp(said.key, own_.key, sizeof(own_.key)) == 0;
  }

  void listen() {
    auto own = tcp::resolve(addresses_[rank_]);
    listener_ = tcp::open_socket(own.family);
    int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener_, reinterpret_cast<sockaddr*>(&own.address), own.length) != 0 || ::listen(listener_, 128) != 0) {
      throw std::runtime_error(
          "rank " + std::to_string(rank_) + " cannot listen at " + addresses_[rank_] + ": " + tcp::reason_of(errno));
    }
    fcntl(listener_, F_SETFL, fcntl(listener_, F_GETFL, 0) | O_NONBLOCK);
  }

  // Tries until it listens.
  void connect_to(int other, bool is_pulse) {
    auto there = tcp::resolve(addresses_[other]);
    int& socket = socket_of(other, is_pulse);
    while (true) {
      socket = tcp::open_socket(there.family);
      tcp::prepare(socket);
      int error = 0;
      if (::connect(socket, reinterpret_cast<sockaddr*>(&there.address), there.length) != 0) {
        error = errno;
        if (error == EINPROGRESS) {
          error = ETIMEDOUT;
          socklen_t length = sizeof(error);
          if (tcp::wait_for(socket, POLLOUT, deadline_)) getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &length);
        }
      }
      if (error == 0) {
        auto own = hello(is_pulse);
        Hello said{};
        bool isDone = tcp::send_all(socket, &own, sizeof(own), deadline_) &&
            tcp::receive_all(socket, &said, sizeof(said), deadline_);
        if (isDone && is_member(said) && static_cast<int>(said.rank) == other) return;
        throw std::runtime_error(
            "what answers at " + addresses_[other] + " is not rank " + std::to_string(other) + " of this group");
      }
      close(std::exchange(socket, -1));
      if (tcp::now() >= deadline_) {
        throw std::runtime_error(
            "rank " + std::to_string(other) + " did not answer at " + addresses_[other] + ": " + tcp::reason_of(error));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  // Listens to all who connect at once, so that a stranger who says nothing holds up nobody.
  void accept_others() {
    while (true) {
      auto absent = std::find_if(sockets_.begin() + rank_ + 1, sockets_.end(), [](const Connection& one) {
        return one.messages < 0 || one.pulse < 0;
      });
      if (absent == sockets_.end()) return;
      double time = tcp::now();
      if (time >= deadline_) {
        int other = static_cast<int>(absent - sockets_.begin());
        throw std::runtime_error(
            "rank " + std::to_string(other) + " (" + addresses_[other] + ") did not come to " + addresses_[rank_]);
      }
      double until = deadline_;
      std::vector<pollfd> waits{{listener_, POLLIN, 0}};
      for (const auto& caller : callers_) {
        waits.push_back({caller.socket, POLLIN, 0});
        until = std::min(until, caller.until);
      }
      poll(waits.data(), waits.size(), std::max(1, tcp::milliseconds_until(until)));
      std::vector<Caller> left;
      for (auto& caller : callers_) {
        if (!is_answered(caller)) left.push_back(caller);
      }
      callers_ = std::move(left);
      take_caller();
    }
  }

  void take_caller() {
    int socket = ::accept(listener_, nullptr, nullptr);
    if (socket < 0) {
      if (tcp::again(errno) || errno == ECONNABORTED) return;
      throw std::runtime_error("rank " + std::to_string(rank_) + " takes no connection: " + tcp::reason_of(errno));
    }
    tcp::prepare(socket);
    if (callers_.size() == most_strangers) {
      close(callers_.front().socket);
      callers_.erase(callers_.begin());
    }
    callers_.push_back({socket, tcp::now() + introduction});
  }

  // Reads what the caller says by now. Whether nothing more is expected: it is a member of the group from here on, or turned away.
  bool is_answered(Caller& caller) {
    ssize_t done =
        ::recv(caller.socket, reinterpret_cast<char*>(&caller.said) + caller.heard, sizeof(Hello) - caller.heard, 0);
    if (done > 0) caller.heard += static_cast<size_t>(done);
    bool speaks = done > 0 || (done < 0 && tcp::again(errno) && tcp::now() < caller.until);
    if (speaks && caller.heard < sizeof(Hello)) return false;
    int said = static_cast<int>(caller.said.rank);
    bool is_pulse = caller.said.is_pulse != 0;
    bool isNew = speaks && is_member(caller.said) && said > rank_ && said < size() && socket_of(said, is_pulse) < 0;
    auto own = hello(is_pulse);
    if (isNew && tcp::send_all(caller.socket, &own, sizeof(own), deadline_)) {
      socket_of(said, is_pulse) = caller.socket;
    } else {
      close(caller.socket);
    }
    return true;
  }

  int rank_;
  std::vector<std::string> addresses_;
  double deadline_;
  Hello own_{};
  int listener_ = -1;
  std::vector<Connection> sockets_;
  std::vector<Caller> callers_;
};

} // namespace

std::vector<Connection> connect_members(const MeshOptions& options) {
  return Members(options).connect();
}

} // namespace mlxlm
