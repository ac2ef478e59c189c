// Settings from the environment.
#pragma once

#include <cstdlib>
#include <string_view>

namespace mlxlm {

// What the variable says; empty where it is not set.
inline std::string_view environment(const char* name) {
  auto text = std::getenv(name);
  return text ? text : "";
}

} // namespace mlxlm
