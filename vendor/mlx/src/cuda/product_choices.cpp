// Which of its kernels cuBLASLt takes for a product, remembered between MLX and cuBLASLt. CUDA builds only.
//
// MLX asks that anew for every product, and cuBLASLt thinks about it for longer than a GPU needs for a few rows. This library
// is searched ahead of cuBLASLt, so its functions are called instead. They write down what cuBLASLt is told of products and
// matrices, and look the question up by that: a description's own bytes are not all said to be set.
#include <dlfcn.h>

#include <cstdint>
#include <string>
#include <unordered_map>

namespace {

using Status = int;
constexpr Status success = 0;
constexpr Status not_initialized = 1;

struct Choice {
  uint64_t algorithm[8];
  size_t workspace;
  Status state;
  float waves;
  int reserved[4];
};

void* real(const char* name) {
  static void* library = dlopen("libcublasLt.so.13", RTLD_LAZY | RTLD_LOCAL);
  return library ? dlsym(library, name) : nullptr;
}

// cuBLASLt's own function of a name.
template <typename F>
struct Own {
  F* function;

  explicit Own(const char* name) : function(reinterpret_cast<F*>(real(name))) {}
  template <typename... Arguments>
  Status operator()(Arguments... arguments) const {
    return function ? function(arguments...) : not_initialized;
  }
};

// What was told of the calling thread's descriptions, and what was chosen. A bias is told by its address, so that there
// may be many questions. Never freed: MLX's descriptions of a thread come here once more at its end.
constexpr size_t most = 8192;
thread_local auto& told = *new std::unordered_map<const void*, std::string>();
thread_local auto& choices = *new std::unordered_map<std::string, Choice>();

void put(std::string& text, const void* bytes, size_t size) {
  text.append(static_cast<const char*>(bytes), size);
}

template <typename... Parts>
std::string text_of(const Parts&... parts) {
  std::string text;
  (put(text, &parts, sizeof parts), ...);
  return text;
}

void remember(const void* description, std::string text) {
  if (told.size() >= most) told.clear();
  told.insert_or_assign(description, std::move(text));
}

using Set = Own<Status(void*, int, const void*, size_t)>;
using Destroy = Own<Status(const void*)>;

Status set(const Set& own, void* description, int what, const void* value, size_t size) {
  auto status = own(description, what, value, size);
  auto known = told.find(description);
  if (known != told.end()) {
    known->second += text_of(what, size);
    put(known->second, value, value ? size : 0);
  }
  return status;
}

Status destroy(const Destroy& own, const void* description) {
  told.erase(description);
  return own(description);
}

// Behind `text`; nothing where the description is another's.
bool add(std::string& text, const void* description) {
  auto known = told.find(description);
  if (known == told.end()) return false;
  text += text_of(known->second.size()) + known->second;
  return true;
}

} // namespace

extern "C" {

Status cublasLtMatmulDescCreate(void** made, int computes, int scales) {
  static const Own<Status(void**, int, int)> own("cublasLtMatmulDescCreate");
  auto status = own(made, computes, scales);
  if (status == success) remember(*made, text_of(computes, scales));
  return status;
}

Status cublasLtMatmulDescSetAttribute(void* description, int what, const void* value, size_t size) {
  static const Set own("cublasLtMatmulDescSetAttribute");
  return set(own, description, what, value, size);
}

Status cublasLtMatmulDescDestroy(const void* description) {
  static const Destroy own("cublasLtMatmulDescDestroy");
  return destroy(own, description);
}

Status cublasLtMatrixLayoutCreate(void** made, int type, uint64_t rows, uint64_t columns, int64_t stride) {
  static const Own<Status(void**, int, uint64_t, uint64_t, int64_t)> own("cublasLtMatrixLayoutCreate");
  auto status = own(made, type, rows, columns, stride);
  if (status == success) remember(*made, text_of(type, rows, columns, stride));
  return status;
}

Status cublasLtMatrixLayoutSetAttribute(void* layout, int what, const void* value, size_t size) {
  static const Set own("cublasLtMatrixLayoutSetAttribute");
  return set(own, layout, what, value, size);
}

Status cublasLtMatrixLayoutDestroy(const void* layout) {
  static const Destroy own("cublasLtMatrixLayoutDestroy");
  return destroy(own, layout);
}

Status cublasLtMatmulPreferenceCreate(void** made) {
  static const Own<Status(void**)> own("cublasLtMatmulPreferenceCreate");
  auto status = own(made);
  if (status == success) remember(*made, "");
  return status;
}

Status cublasLtMatmulPreferenceSetAttribute(void* preference, int what, const void* value, size_t size) {
  static const Set own("cublasLtMatmulPreferenceSetAttribute");
  return set(own, preference, what, value, size);
}

Status cublasLtMatmulPreferenceDestroy(const void* preference) {
  static const Destroy own("cublasLtMatmulPreferenceDestroy");
  return destroy(own, preference);
}

Status cublasLtMatmulAlgoGetHeuristic(
    void* handle, const void* operation, const void* a, const void* b, const void* c, const void* d, const void* preference,
    int wanted, Choice* made, int* found) {
  static const Own<Status(
      void*, const void*, const void*, const void*, const void*, const void*, const void*, int, Choice*, int*)>
      own("cublasLtMatmulAlgoGetHeuristic");
  std::string question = text_of(handle);
  bool known = wanted == 1;
  for (auto* description : {operation, a, b, c, d, preference}) {
    known = known && add(question, description);
  }
  auto at = known ? choices.find(question) : choices.end();
  if (at != choices.end()) {
    *made = at->second;
    *found = 1;
    return success;
  }
  auto status = own(handle, operation, a, b, c, d, preference, wanted, made, found);
  if (known && status == success && *found == 1) {
    if (choices.size() >= most) choices.clear();
    choices.emplace(std::move(question), *made);
  }
  return status;
}

} // extern "C"
