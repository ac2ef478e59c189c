// Checkpoint files: safetensors, GGUF, npy. Lists of names travel as NUL-closed fields, arrays as handles beside them.
#include "abi.h"
#include "file_tensors.h"
#include "mapped_files.h"
#include "safetensors_places.h"

#include <cstring>

#include "mlx/allocator.h"

using namespace mlxlm;

namespace {

std::unordered_map<std::string, array> named_arrays(MailReader& mail, const std::vector<std::string>& names) {
  auto values = mail.arrays(static_cast<int32_t>(names.size()));
  std::unordered_map<std::string, array> result;
  for (size_t i = 0; i < names.size(); ++i) {
    result.insert_or_assign(names[i], values[i]);
  }
  return result;
}

// Posts the handles; the text gets the arrays' names in the same order. Returns the number of arrays.
int32_t post_named(std::unordered_map<std::string, array>& arrays, std::string& text) {
  std::vector<array> values;
  values.reserve(arrays.size());
  for (auto& [name, value] : arrays) {
    text += name + '\0';
    values.push_back(value);
  }
  return put_all(std::move(values));
}

// How GGUF metadata is told apart in text: a letter, then the value.
constexpr char text_value = 's';
constexpr char list_value = 'l';
constexpr char array_value = 'a';

// Whether MLX's allocator keeps a buffer's size right in front of its data, and a buffer is that place.
bool has_header(mx::allocator::Buffer buffer) {
  return static_cast<char*>(buffer.raw_ptr()) - static_cast<char*>(buffer.ptr()) == sizeof(size_t);
}

} // namespace

extern "C" {

// Text: the names, then metadata keys and values alternating. Returns the number of arrays; the text's length lies
// beside the mailbox.
int32_t mlxlm_load_safetensors(const char* path) {
  return guarded([&] {
    auto file = std::make_shared<OpenFile>(path);
    auto [arrays, metadata] = mx::load_safetensors(file, current_stream());
    auto places = places_of_tensors(*file);
    for (auto& [name, value] : arrays) {
      value = file_tensor(value, file, places.at(name));
    }
    std::string text;
    int32_t count = post_named(arrays, text);
    for (auto& [key, value] : metadata) {
      text += key + '\0' + value + '\0';
    }
    *mailbox().number = post_text(std::move(text));
    return count;
  });
}

int32_t mlxlm_save_safetensors(
    const char* path, const char* names, int32_t names_length, const char* metadata, int32_t metadata_length) {
  return guarded([&] {
    MailReader mail;
    auto arrays = named_arrays(mail, fields(names, names_length));
    std::unordered_map<std::string, std::string> facts;
    auto words = fields(metadata, metadata_length);
    for (size_t i = 0; i + 1 < words.size(); i += 2) {
      facts.insert_or_assign(words[i], words[i + 1]);
    }
    mx::save_safetensors(std::string(path), std::move(arrays), std::move(facts));
    check_mapped_files();
    return 0;
  });
}

// Arrays of the file, then arrays among its metadata. Text: names of the arrays; then for each metadata entry its key,
// a letter and the value (a list: its length, then its items; an array: nothing, it is the next handle).
int32_t mlxlm_load_gguf(const char* path) {
  return guarded([&] {
    auto [arrays, metadata] = mx::load_gguf(std::string(path), current_stream());
    std::string text;
    std::vector<array> values;
    for (auto& [name, value] : arrays) {
      text += name + '\0';
      values.push_back(value);
    }
    text = std::to_string(arrays.size()) + '\0' + text;
    for (auto& [key, value] : metadata) {
      if (auto words = std::get_if<std::string>(&value)) {
        text += key + '\0' + text_value + '\0' + *words + '\0';
      } else if (auto list = std::get_if<std::vector<std::string>>(&value)) {
        text += key + '\0' + list_value + '\0' + std::to_string(list->size()) + '\0';
        for (auto& item : *list) {
          text += item + '\0';
        }
      } else if (auto number = std::get_if<array>(&value)) {
        text += key + '\0' + array_value + '\0';
        values.push_back(*number);
      }
    }
    int32_t count = put_all(std::move(values));
    *mailbox().number = post_text(std::move(text));
    return count;
  });
}

// The same layout as mlxlm_load_gguf's text, in `text`; handles in the mailbox.
int32_t mlxlm_save_gguf(const char* path, const char* text, int32_t length, int32_t count) {
  return guarded([&] {
    auto values = MailReader().arrays(count);
    auto words = fields(text, length);
    size_t word = 0;
    size_t value = 0;
    auto next = [&] { return words.at(word++); };
    std::unordered_map<std::string, array> arrays;
    for (size_t left = std::stoul(next()); left > 0; --left) {
      arrays.insert_or_assign(next(), values.at(value++));
    }
    std::unordered_map<std::string, mx::GGUFMetaData> metadata;
    while (word < words.size()) {
      auto key = next();
      auto kind = next();
      if (kind[0] == text_value) {
        metadata.insert_or_assign(key, next());
      } else if (kind[0] == list_value) {
        std::vector<std::string> list;
        for (size_t left = std::stoul(next()); left > 0; --left) {
          list.push_back(next());
        }
        metadata.insert_or_assign(key, std::move(list));
      } else {
        metadata.insert_or_assign(key, values.at(value++));
      }
    }
    mx::save_gguf(std::string(path), std::move(arrays), std::move(metadata));
    return 0;
  });
}

// Bytes of a file from `start` on, uint8 of a shape. Mapped where MLX's buffers are plain memory, else read.
int32_t mlxlm_map_file(const char* path, double start, int32_t axes) {
  return guarded([&] {
    MailReader mail;
    auto shape = mail.shape(axes);
    size_t count = 1;
    for (int size : shape) {
      count *= static_cast<size_t>(size);
    }
    Mapping mapping(path, static_cast<size_t>(start), count);
    auto release = [base = mapping.base](const auto&) { unmap(base); };
    auto example = mx::allocator::malloc(1);
    if (!has_header(example.buffer())) {
      array copied(mapping.data, std::move(shape), mx::uint8, release);
      check_mapped_files();
      return put(std::move(copied));
    }
    auto buffer = mapping.data - sizeof(count);
    std::memcpy(buffer, &count, sizeof(count));
    return put(array(
        mx::allocator::Data(mx::allocator::Buffer(buffer), release), std::move(shape), mx::uint8));
  });
}

int32_t mlxlm_load_npy(const char* path) {
  return guarded([&] { return put(mx::load(std::string(path), current_stream())); });
}

int32_t mlxlm_save_npy(const char* path, int32_t handle) {
  return guarded([&] {
    mx::save(std::string(path), at(handle));
    return 0;
  });
}

} // extern "C"
