#include "tcp.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdexcept>
#include <system_error>

namespace mlxlm::tcp {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string reason_of(int error) {
  return std::generic_category().message(error);
}

Address resolve(const std::string& text) {
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
  Address result;
  std::memcpy(&result.address, found->ai_addr, found->ai_addrlen);
  result.length = static_cast<socklen_t>(found->ai_addrlen);
  result.family = found->ai_family;
  freeaddrinfo(found);
  return result;
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
  auto set = [socket](int level, int name, int value) { setsockopt(socket, level, name, &value, sizeof(value)); };
  fcntl(socket, F_SETFD, FD_CLOEXEC);
  fcntl(socket, F_SETFL, fcntl(socket, F_GETFL, 0) | O_NONBLOCK);
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef SO_NOSIGPIPE
  set(SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
#ifdef TCP_KEEPIDLE
  set(IPPROTO_TCP, TCP_KEEPIDLE, 2);
#elif defined(TCP_KEEPALIVE)
  set(IPPROTO_TCP, TCP_KEEPALIVE, 2);
#endif
#ifdef TCP_KEEPINTVL
  set(IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set(IPPROTO_TCP, TCP_KEEPCNT, silence - 2);
#endif
}

bool again(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

int milliseconds_until(double time) {
  return static_cast<int>(std::clamp((time - now()) * 1000, 0.0, 1e9));
}

bool wait_for(int socket, short events, double deadline) {
  pollfd one{socket, events, 0};
  int found = -1;
  do {
    found = poll(&one, 1, milliseconds_until(deadline));
  } while (found < 0 && errno == EINTR);
  return found > 0;
}

namespace {

// `move` moves what it can of what is behind so many bytes, as send and recv do.
template <class Move>
bool move_all(int socket, short events, size_t bytes, double deadline, Move move) {
  for (size_t moved = 0; moved < bytes;) {
    ssize_t more = move(moved);
    if (more > 0) {
      moved += static_cast<size_t>(more);
    } else if (more == 0 || !again(errno) || !wait_for(socket, events, deadline)) {
      return false;
    }
  }
  return true;
}

} // namespace

bool send_all(int socket, const void* data, size_t bytes, double deadline) {
  return move_all(socket, POLLOUT, bytes, deadline, [&](size_t moved) {
    return ::send(socket, static_cast<const char*>(data) + moved, bytes - moved, MSG_NOSIGNAL);
  });
}

bool receive_all(int socket, void* data, size_t bytes, double deadline) {
  return move_all(socket, POLLIN, bytes, deadline, [&](size_t moved) {
    return ::recv(socket, static_cast<char*>(data) + moved, bytes - moved, 0);
  });
}

} // namespace mlxlm::tcp
