// Devices, streams and memory.
#include <cstdlib>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "abi.h"
#include "cpu/huge_pages.h"
#include "cpu/isa.h"
#include "cuda/driver.h"

#include "mlx/backend/cuda/cuda.h"
#include "mlx/backend/metal/metal.h"

namespace mlxlm {
namespace {

std::vector<mx::Stream>& streams() {
  static auto* made = new std::vector<mx::Stream>();
  return *made;
}

std::optional<mx::Stream>& chosen_stream() {
  static std::optional<mx::Stream> stream;
  return stream;
}

mx::Device device_of(int32_t type, int32_t index) {
  return {type == 0 ? mx::Device::cpu : mx::Device::gpu, index};
}

mx::Stream stream_of(int32_t id) {
  if (id < 0 || id >= static_cast<int32_t>(streams().size())) {
    throw std::invalid_argument("unknown stream " + std::to_string(id));
  }
  return streams()[id];
}

} // namespace

mx::StreamOrDevice current_stream() {
  if (chosen_stream()) {
    return *chosen_stream();
  }
  return {};
}

} // namespace mlxlm

using namespace mlxlm;

extern "C" {

int32_t mlxlm_metal_available() {
  return guarded([] { return mx::metal::is_available() ? 1 : 0; });
}

int32_t mlxlm_cuda_available() {
  return guarded([] { return mx::cu::is_available() ? 1 : 0; });
}

int32_t mlxlm_enable_cpu_kernels(bool on) {
  return guarded([&] {
    cpu::enable(on);
    return 0;
  });
}

int32_t mlxlm_device_count(int32_t type) {
  return guarded([&] { return mx::device_count(type == 0 ? mx::Device::cpu : mx::Device::gpu); });
}

int32_t mlxlm_default_device() {
  return guarded([] { return mx::default_device() == mx::Device::cpu ? 0 : 1; });
}

int32_t mlxlm_set_default_device(int32_t type, int32_t index) {
  return guarded([&] {
    mx::set_default_device(device_of(type, index));
    return 0;
  });
}

// Text: name and value of each fact, alternating. Returns the text's length.
int32_t mlxlm_device_info(int32_t type, int32_t index) {
  return guarded([&] {
    std::string text;
    for (const auto& [name, value] : mx::device_info(device_of(type, index))) {
      text += name + '\0';
      if (auto number = std::get_if<size_t>(&value)) {
        text += std::to_string(*number) + '\0';
      } else {
        text += std::get<std::string>(value) + '\0';
      }
    }
    return post_text(std::move(text));
  });
}

int32_t mlxlm_new_stream(int32_t type, int32_t index) {
  return guarded([&] {
    streams().push_back(mx::new_stream(device_of(type, index)));
    return static_cast<int32_t>(streams().size()) - 1;
  });
}

// Ops go to stream `id` from now on; -1 gives them back to the default device's default stream.
int32_t mlxlm_use_stream(int32_t id) {
  return guarded([&] {
    chosen_stream() = id < 0 ? std::nullopt : std::optional(stream_of(id));
    return 0;
  });
}

int32_t mlxlm_set_default_stream(int32_t id) {
  return guarded([&] {
    mx::set_default_stream(stream_of(id));
    return 0;
  });
}

int32_t mlxlm_synchronize(int32_t id) {
  return guarded([&] {
    if (id < 0) {
      mx::synchronize();
    } else {
      mx::synchronize(stream_of(id));
    }
    return 0;
  });
}

// Bytes, as doubles: exact far beyond any machine's memory. -1 with an error set where MLX throws.
double mlxlm_active_memory() {
  return guarded([] { return static_cast<double>(mx::get_active_memory()); });
}
double mlxlm_peak_memory() {
  return guarded([] { return static_cast<double>(mx::get_peak_memory()); });
}
double mlxlm_cache_memory() {
  return guarded([] { return static_cast<double>(mx::get_cache_memory()); });
}
double mlxlm_memory_limit() {
  return guarded([] { return static_cast<double>(mx::get_memory_limit()); });
}
double mlxlm_set_memory_limit(double bytes) {
  return guarded([&] { return static_cast<double>(mx::set_memory_limit(static_cast<size_t>(bytes))); });
}
double mlxlm_set_cache_limit(double bytes) {
  return guarded([&] { return static_cast<double>(mx::set_cache_limit(static_cast<size_t>(bytes))); });
}
double mlxlm_set_wired_limit(double bytes) {
  return guarded([&] { return static_cast<double>(mx::set_wired_limit(static_cast<size_t>(bytes))); });
}
double mlxlm_buffer_size(int32_t count) {
  return guarded([&] { return static_cast<double>(mx::get_array_buffer_size(MailReader().arrays(count))); });
}
int32_t mlxlm_reset_peak_memory() {
  return guarded([] {
    mx::reset_peak_memory();
    return 0;
  });
}
int32_t mlxlm_clear_cache() {
  return guarded([] {
    mx::clear_cache();
    return 0;
  });
}

// glibc keeps what is free between blocks in use, and gives back by itself only what lies at the heap's end. CUDA's pool keeps all.
int32_t mlxlm_release_memory() {
  return guarded([] {
    mx::clear_cache();
    cuda::return_freed_memory();
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    return 0;
  });
}

// The arrays must be evaluated, and in the CPU's memory.
int32_t mlxlm_prefer_huge_pages(int32_t count) {
  return guarded([&] {
    std::vector<std::pair<char*, size_t>> blocks;
    for (auto& value : MailReader().arrays(count)) {
      blocks.emplace_back(value.data<char>(), value.nbytes());
    }
    cpu::prefer_huge_pages(std::move(blocks));
    return 0;
  });
}

int32_t mlxlm_set_metallib_path(const char* path) {
  return guarded([&] {
    mx::metal::set_metallib_path(path);
    return 0;
  });
}

} // extern "C"
