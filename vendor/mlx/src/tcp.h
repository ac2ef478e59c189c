// TCP sockets that do not block, and the waiting for them.
#pragma once

#include <cstddef>
#include <string>
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 // macOS: SO_NOSIGPIPE is set instead
#endif

namespace mlxlm::tcp {

// A host that vanished without a word is noticed after so many seconds, on a connection on which nothing is under way.
constexpr int silence = 8;

// Seconds of a clock that never goes back.
double now();

std::string reason_of(int error);

struct Address {
  sockaddr_storage address{};
  socklen_t length = 0;
  int family = 0;
};

// "host:port", or "[v6]:port".
Address resolve(const std::string& text);

// A socket that later programs do not inherit.
int open_socket(int family);

// Makes a connection one that does not block, sends at once and notices that its other end vanished.
void prepare(int socket);

// Whether a call that failed so is to be tried again.
bool again(int error);

// How long poll may wait.
int milliseconds_until(double time);

// Waits until the socket is ready; false where the time is over, or the socket is none.
bool wait_for(int socket, short events, double deadline);

// All bytes of a small message, or false.
bool send_all(int socket, const void* data, size_t bytes, double deadline);
bool receive_all(int socket, void* data, size_t bytes, double deadline);

} // namespace mlxlm::tcp
