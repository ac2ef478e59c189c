// A cache of compiled CUDA kernels, between MLX and NVRTC. CUDA builds only.
//
// MLX's own cache leaves out kernels of other makers, ours among them, so they were compiled at every start; it names a
// kernel without its source and its GPU, and writes files in place, so that processes that start at once can read half of
// one. This library is searched ahead of NVRTC, so its functions are called instead. They look a program up by all that
// decides its code (source, headers, options, names), hand it to NVRTC where it is not known, and keep what comes out.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cuda/kernel_texts.h"
#include "environment.h"

namespace {

using Result = int;
constexpr Result success = 0;
constexpr Result invalid_program = 4;
constexpr Result name_not_valid = 10;

template <typename F>
F* real(const char* name) {
  static void* library = dlopen("libnvrtc.so.13", RTLD_LAZY | RTLD_LOCAL);
  return library ? reinterpret_cast<F*>(dlsym(library, name)) : nullptr;
}

// What NVRTC made of a program.
struct Compiled {
  bool is_cubin = false;
  std::string code;
  // As asked for, and as the code names it.
  std::vector<std::pair<std::string, std::string>> names;
};

struct Program {
  std::string source;
  std::string name;
  std::vector<std::string> headers;
  std::vector<std::string> include_names;
  std::vector<std::string> expressions;
  Compiled compiled;
  // NVRTC's own, where it was asked.
  void* inner = nullptr;
};

// 128 bits of FNV-1a: files of one user, nobody to be fooled.
class Hash {
 public:
  void add(const std::string& part) {
    auto size = static_cast<uint64_t>(part.size());
    bytes(reinterpret_cast<const char*>(&size), sizeof size);
    bytes(part.data(), part.size());
  }

  std::string text() const {
    char digits[33];
    auto [high, low] = std::pair(static_cast<uint64_t>(state_ >> 64), static_cast<uint64_t>(state_));
    std::snprintf(digits, sizeof digits, "%016llx%016llx", (unsigned long long)high, (unsigned long long)low);
    return digits;
  }

 private:
  void bytes(const char* data, size_t size) {
    constexpr auto prime = (static_cast<unsigned __int128>(1) << 88) + 0x13b;
    for (size_t i = 0; i < size; ++i) {
      state_ = (state_ ^ static_cast<unsigned char>(data[i])) * prime;
    }
  }

  unsigned __int128 state_ = (static_cast<unsigned __int128>(0x6c62272e07bb0142) << 64) | 0x62b821756295c58d;
};

std::string key_of(const Program& program, const std::vector<std::string>& options) {
  Hash hash;
  hash.add(program.source);
  for (const auto& part : program.headers) hash.add(part);
  for (const auto& part : program.include_names) hash.add(part);
  for (const auto& part : program.expressions) hash.add(part);
  for (const auto& option : options) {
    // The headers there are those of this build, wherever it is unpacked.
    if (option.rfind("--include-path=", 0) != 0) hash.add(option);
  }
  return hash.text();
}

std::optional<std::filesystem::path> folder() {
  auto named = mlxlm::environment("MLXLM_CUDA_CACHE");
  if (named.empty()) return std::nullopt;
  return std::filesystem::path(named);
}

constexpr char magic[] = "mlxlm kernel 1";

void put(std::string& file, const std::string& part) {
  auto size = static_cast<uint64_t>(part.size());
  file.append(reinterpret_cast<const char*>(&size), sizeof size);
  file += part;
}

bool take(const std::string& file, size_t& at, std::string& part) {
  uint64_t size;
  if (file.size() - at < sizeof size) return false;
  std::memcpy(&size, file.data() + at, sizeof size);
  at += sizeof size;
  if (file.size() - at < size) return false;
  part.assign(file, at, size);
  at += size;
  return true;
}

std::optional<Compiled> read(const std::filesystem::path& path, size_t names) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return std::nullopt;
  std::string file((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  size_t at = 0;
  std::string head, kind;
  Compiled compiled;
  if (!take(file, at, head) || head != magic || !take(file, at, kind) || !take(file, at, compiled.code)) return std::nullopt;
  compiled.is_cubin = kind == "cubin";
  for (size_t i = 0; i < names; ++i) {
    std::string asked, given;
    if (!take(file, at, asked) || !take(file, at, given)) return std::nullopt;
    compiled.names.emplace_back(asked, given);
  }
  if (at != file.size() || compiled.code.empty()) return std::nullopt;
  return compiled;
}

// Into a file of its own, then under its name: another process finds all of it or nothing. Where it can't be written, the
// next start compiles again.
void write(const std::filesystem::path& path, const Compiled& compiled) {
  std::string file;
  put(file, magic);
  put(file, compiled.is_cubin ? "cubin" : "ptx");
  put(file, compiled.code);
  for (const auto& [asked, given] : compiled.names) {
    put(file, asked);
    put(file, given);
  }
  auto partial = path;
  partial += ".partial-" + std::to_string(getpid());
  std::error_code error;
  {
    std::ofstream stream(partial, std::ios::binary);
    stream.write(file.data(), static_cast<std::streamsize>(file.size()));
    if (!stream.flush()) {
      stream.close();
      std::filesystem::remove(partial, error);
      return;
    }
  }
  std::filesystem::rename(partial, path, error);
}

std::string code_of(void* inner, const char* size_name, const char* code_name) {
  auto size_of = real<Result(void*, size_t*)>(size_name);
  auto copy = real<Result(void*, char*)>(code_name);
  size_t size = 0;
  if (!size_of || !copy || size_of(inner, &size) != success || size == 0) return {};
  std::string code(size, '\0');
  return copy(inner, code.data()) == success ? code : std::string();
}

Result compile(Program& program, const std::vector<std::string>& options) {
  auto create = real<Result(void**, const char*, const char*, int, const char* const*, const char* const*)>("nvrtcCreateProgram");
  auto add_name = real<Result(void*, const char*)>("nvrtcAddNameExpression");
  auto compile_program = real<Result(void*, int, const char* const*)>("nvrtcCompileProgram");
  auto lowered = real<Result(void*, const char*, const char**)>("nvrtcGetLoweredName");
  if (!create || !add_name || !compile_program || !lowered) return invalid_program;

  auto pointers = [](const std::vector<std::string>& texts) {
    std::vector<const char*> list;
    for (const auto& text : texts) list.push_back(text.c_str());
    return list;
  };
  auto headers = pointers(program.headers);
  auto include_names = pointers(program.include_names);
  auto result = create(
      &program.inner, program.source.c_str(), program.name.c_str(), static_cast<int>(headers.size()), headers.data(),
      include_names.data());
  if (result != success) return result;
  for (const auto& expression : program.expressions) {
    result = add_name(program.inner, expression.c_str());
    if (result != success) return result;
  }
  auto words = pointers(options);
  result = compile_program(program.inner, static_cast<int>(words.size()), words.data());
  if (result != success) return result;

  auto& compiled = program.compiled;
  compiled.code = code_of(program.inner, "nvrtcGetCUBINSize", "nvrtcGetCUBIN");
  compiled.is_cubin = !compiled.code.empty();
  if (!compiled.is_cubin) compiled.code = code_of(program.inner, "nvrtcGetPTXSize", "nvrtcGetPTX");
  for (const auto& expression : program.expressions) {
    const char* given = nullptr;
    result = lowered(program.inner, expression.c_str(), &given);
    if (result != success) return result;
    compiled.names.emplace_back(expression, given);
  }
  return success;
}

Program* of(void* program) {
  return static_cast<Program*>(program);
}

Result copy_code(void* program, bool is_cubin, char* to) {
  const auto& compiled = of(program)->compiled;
  if (compiled.code.empty() || compiled.is_cubin != is_cubin) return invalid_program;
  std::memcpy(to, compiled.code.data(), compiled.code.size());
  return success;
}

Result code_size(void* program, bool is_cubin, size_t* size) {
  const auto& compiled = of(program)->compiled;
  *size = compiled.is_cubin == is_cubin ? compiled.code.size() : 0;
  return success;
}

} // namespace

extern "C" {

Result nvrtcCreateProgram(
    void** program, const char* source, const char* name, int count, const char* const* headers,
    const char* const* include_names) {
  auto made = std::make_unique<Program>();
  made->source = mlxlm::cuda::with_texts(source);
  made->name = name ? name : "";
  for (int i = 0; i < count; ++i) {
    made->headers.emplace_back(headers[i]);
    made->include_names.emplace_back(include_names[i]);
  }
  *program = made.release();
  return success;
}

Result nvrtcDestroyProgram(void** program) {
  auto* made = of(*program);
  Result result = success;
  if (made->inner) {
    auto destroy = real<Result(void**)>("nvrtcDestroyProgram");
    if (destroy) result = destroy(&made->inner);
  }
  delete made;
  *program = nullptr;
  return result;
}

Result nvrtcAddNameExpression(void* program, const char* expression) {
  of(program)->expressions.emplace_back(expression);
  return success;
}

Result nvrtcCompileProgram(void* program, int count, const char* const* words) {
  auto& made = *of(program);
  std::vector<std::string> options(words, words + count);
  auto cache = folder();
  if (!cache) return compile(made, options);
  auto path = *cache / (key_of(made, options) + ".kernel");
  if (auto known = read(path, made.expressions.size())) {
    made.compiled = std::move(*known);
    return success;
  }
  auto result = compile(made, options);
  if (result == success && !made.compiled.code.empty()) write(path, made.compiled);
  return result;
}

Result nvrtcGetLoweredName(void* program, const char* expression, const char** given) {
  for (const auto& [asked, name] : of(program)->compiled.names) {
    if (asked == expression) {
      *given = name.c_str();
      return success;
    }
  }
  return name_not_valid;
}

Result nvrtcGetCUBINSize(void* program, size_t* size) {
  return code_size(program, true, size);
}

Result nvrtcGetCUBIN(void* program, char* to) {
  return copy_code(program, true, to);
}

Result nvrtcGetPTXSize(void* program, size_t* size) {
  return code_size(program, false, size);
}

Result nvrtcGetPTX(void* program, char* to) {
  return copy_code(program, false, to);
}

Result nvrtcGetProgramLogSize(void* program, size_t* size) {
  auto* inner = of(program)->inner;
  auto ask = real<Result(void*, size_t*)>("nvrtcGetProgramLogSize");
  if (inner && ask) return ask(inner, size);
  *size = 1;
  return success;
}

Result nvrtcGetProgramLog(void* program, char* log) {
  auto* inner = of(program)->inner;
  auto ask = real<Result(void*, char*)>("nvrtcGetProgramLog");
  if (inner && ask) return ask(inner, log);
  *log = '\0';
  return success;
}

} // extern "C"
