// xgrammar's log: takes the place of its cpp/support/logging.h, by the same include guard. There, a warning goes to
// stderr, and an error's text begins with the time and a file's path. Here warnings are kept for who compiles a grammar,
// and an error's text is the message alone.
#ifndef XGRAMMAR_SUPPORT_LOGGING_H_
#define XGRAMMAR_SUPPORT_LOGGING_H_

#include <ctime>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace xgrammar {

class LogFatalError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The warnings of this thread since someone cleared them.
inline std::vector<std::string>& Warnings() {
  static thread_local std::vector<std::string> warnings;
  return warnings;
}

// `stream()` throws nothing; the end of the statement throws what was written.
class LogFatal {
 public:
  [[noreturn]] ~LogFatal() noexcept(false) {
    throw LogFatalError(stream_.str());
  }
  std::ostringstream& stream() {
    return stream_;
  }

 private:
  std::ostringstream stream_;
};

class LogMessage {
 public:
  explicit LogMessage(bool is_warning) : is_warning_(is_warning) {}
  ~LogMessage() {
    if (is_warning_) {
      Warnings().push_back(stream_.str());
    }
  }
  std::ostringstream& stream() {
    return stream_;
  }

 private:
  bool is_warning_;
  std::ostringstream stream_;
};

} // namespace xgrammar

#define XGRAMMAR_LOG_INFO ::xgrammar::LogMessage(false).stream()
#define XGRAMMAR_LOG_DEBUG ::xgrammar::LogMessage(false).stream()
#define XGRAMMAR_LOG_WARNING ::xgrammar::LogMessage(true).stream()
#define XGRAMMAR_LOG_FATAL ::xgrammar::LogFatal().stream()
#define XGRAMMAR_LOG(level) XGRAMMAR_LOG_##level

#define XGRAMMAR_CHECK(condition) \
  if (!(condition))               \
  ::xgrammar::LogFatal().stream()
#define XGRAMMAR_ICHECK(condition) \
  if (!(condition))                \
  ::xgrammar::LogFatal().stream() << "internal check failed: " #condition " "
#define XGRAMMAR_DCHECK(condition) \
  while (false)                    \
  XGRAMMAR_ICHECK(condition)

#endif
