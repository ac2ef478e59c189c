#include "safetensors_places.h"

#include <cstdint>

#include <picojson.h>

namespace mlxlm {

std::unordered_map<std::string, size_t> places_of_tensors(OpenFile& file) {
  uint64_t length = 0;
  file.seek(0, std::ios_base::beg);
  file.read(reinterpret_cast<char*>(&length), sizeof(length));
  std::string text(length, '\0');
  file.read(text.data(), length);

  picojson::value header;
  auto error = picojson::parse(header, text);
  if (!error.empty()) {
    throw std::runtime_error("the header of " + file.label() + " is not JSON: " + error);
  }
  std::unordered_map<std::string, size_t> places;
  for (const auto& [name, entry] : header.get<picojson::object>()) {
    if (name != "__metadata__") {
      const auto& offsets = entry.get("data_offsets").get<picojson::array>();
      places.emplace(name, sizeof(length) + length + static_cast<size_t>(offsets.at(0).get<double>()));
    }
  }
  return places;
}

} // namespace mlxlm
