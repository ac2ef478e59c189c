// Mailbox, errors and text: the plumbing between the two languages.
#include "abi.h"

#include <cstring>

namespace mlxlm {
namespace {

std::string& error_text() {
  static std::string text;
  return text;
}

std::string& posted_text() {
  static std::string text;
  return text;
}

} // namespace

void set_error(const char* text) noexcept {
  try {
    error_text() = text;
  } catch (...) {
    error_text().clear();
  }
}

Mailbox& mailbox() {
  static Mailbox box;
  return box;
}

int32_t post(const std::vector<int32_t>& values) {
  auto& box = mailbox();
  if (static_cast<int64_t>(values.size()) > box.capacity) {
    throw std::length_error("a result list is longer than the mailbox");
  }
  std::memcpy(box.data, values.data(), values.size() * sizeof(int32_t));
  return static_cast<int32_t>(values.size());
}

int32_t post_text(std::string text) {
  posted_text() = std::move(text);
  return static_cast<int32_t>(posted_text().size());
}

std::vector<std::string> fields(const char* text, int32_t length) {
  std::vector<std::string> result;
  const char* end = text + length;
  while (text < end) {
    auto stop = static_cast<const char*>(std::memchr(text, 0, end - text));
    if (!stop) {
      throw std::invalid_argument("a list of names does not end in NUL");
    }
    result.emplace_back(text, stop);
    text = stop + 1;
  }
  return result;
}

mx::Dtype dtype_of(int32_t code) {
  static const mx::Dtype dtypes[] = {
      mx::bool_, mx::uint8, mx::uint16, mx::uint32, mx::uint64, mx::int8, mx::int16,
      mx::int32, mx::int64, mx::float16, mx::float32, mx::float64, mx::bfloat16, mx::complex64};
  if (code < 0 || code >= static_cast<int32_t>(std::size(dtypes))) {
    throw std::invalid_argument("unknown dtype code " + std::to_string(code));
  }
  return dtypes[code];
}

} // namespace mlxlm

using namespace mlxlm;

extern "C" {

int32_t mlxlm_attach_mailbox(int32_t* data, int32_t capacity, double* number) {
  mailbox() = {data, capacity, number};
  return 0;
}

const char* mlxlm_last_error() {
  return error_text().c_str();
}

const char* mlxlm_text() {
  return posted_text().data();
}

} // extern "C"
