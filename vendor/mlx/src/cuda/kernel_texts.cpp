#include "cuda/kernel_texts.h"

#include <atomic>
#include <vector>

namespace mlxlm::cuda {

namespace {

constexpr const char* opening = "#include \"mlxlm text ";
constexpr const char* closing = "\"\n";

std::vector<std::string>& texts() {
  static auto* made = new std::vector<std::string>();
  return *made;
}

// Whether NVRTC was ever called through this library. Until then nobody knows.
std::atomic<bool> stands_before_nvrtc{false};

} // namespace

std::string named_text(const std::string& text) {
  constexpr size_t worth_a_name = 256;
  if (!stands_before_nvrtc || text.size() < worth_a_name) {
    return text;
  }
  auto& all = texts();
  size_t number = 0;
  while (number < all.size() && all[number] != text) {
    ++number;
  }
  if (number == all.size()) {
    all.push_back(text);
  }
  return opening + std::to_string(number) + closing;
}

std::string with_texts(const std::string& program) {
  stands_before_nvrtc = true;
  std::string whole;
  size_t done = 0;
  for (size_t at = program.find(opening); at != std::string::npos; at = program.find(opening, done)) {
    size_t end = program.find(closing, at);
    size_t digits = at + std::string(opening).size();
    whole += program.substr(done, at - done) + texts().at(std::stoul(program.substr(digits, end - digits)));
    done = end + std::string(closing).size();
  }
  return whole + program.substr(done);
}

} // namespace mlxlm::cuda
