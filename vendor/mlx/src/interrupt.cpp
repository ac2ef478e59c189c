// What is said at Ctrl-C while native code computes, when JavaScript cannot.
#include <cerrno>
#include <csignal>
#include <cstring>
#include <unistd.h>

namespace {

char notice[512];
size_t notice_length = 0;
struct sigaction before;

// Only what POSIX allows in a handler.
void announce(int signal, siginfo_t* info, void* context) {
  int error = errno;
  ssize_t written = write(STDERR_FILENO, notice, notice_length);
  static_cast<void>(written);
  errno = error;
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(signal, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(signal);
  }
}

} // namespace

extern "C" {

// The next SIGINT writes the text to stderr at once, then goes to the handler that there is; the one after it ends the
// process. Returns 0, or -1 where the system takes no handler.
int mlxlm_announce_interrupt(const char* text) {
  size_t length = std::strlen(text);
  if (length > sizeof(notice) || sigaction(SIGINT, nullptr, &before) != 0) {
    return -1;
  }
  std::memcpy(notice, text, length);
  notice_length = length;
  struct sigaction action {};
  action.sa_sigaction = announce;
  action.sa_mask = before.sa_mask;
  action.sa_flags = static_cast<int>(before.sa_flags | SA_SIGINFO | SA_RESETHAND);
  return sigaction(SIGINT, &action, nullptr);
}

} // extern "C"
