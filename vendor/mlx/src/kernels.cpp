// Kernels written in Metal or CUDA source, compiled at run time.
#include "abi.h"

using namespace mlxlm;

namespace {

std::vector<mx::fast::CustomKernelFunction>& kernels() {
  static auto* made = new std::vector<mx::fast::CustomKernelFunction>();
  return *made;
}

int32_t add_kernel(mx::fast::CustomKernelFunction kernel) {
  kernels().push_back(std::move(kernel));
  return static_cast<int32_t>(kernels().size()) - 1;
}

// Template arguments arrive as name, kind, value: kind 0 int, 1 bool, 2 dtype.
std::vector<std::pair<std::string, mx::fast::TemplateArg>>
template_arguments(MailReader& mail, const std::vector<std::string>& names) {
  std::vector<std::pair<std::string, mx::fast::TemplateArg>> result;
  for (const auto& name : names) {
    auto [kind, value] = mail.pair(2);
    if (kind == 0) {
      result.emplace_back(name, value);
    } else if (kind == 1) {
      result.emplace_back(name, value != 0);
    } else {
      result.emplace_back(name, dtype_of(value));
    }
  }
  return result;
}

} // namespace

extern "C" {

// Text: input names, then output names.
int32_t mlxlm_metal_kernel(
    const char* name, const char* names, int32_t length, int32_t inputs, const char* source, const char* header,
    bool row_contiguous, bool atomic_outputs) {
  return guarded([&] {
    auto words = fields(names, length);
    return add_kernel(mx::fast::metal_kernel(
        name, {words.begin(), words.begin() + inputs}, {words.begin() + inputs, words.end()}, source, header,
        row_contiguous, atomic_outputs));
  });
}

int32_t mlxlm_cuda_kernel(
    const char* name, const char* names, int32_t length, int32_t inputs, const char* source, const char* header,
    bool row_contiguous, int32_t shared_memory) {
  return guarded([&] {
    auto words = fields(names, length);
    return add_kernel(mx::fast::cuda_kernel(
        name, {words.begin(), words.begin() + inputs}, {words.begin() + inputs, words.end()}, source, header,
        row_contiguous, shared_memory));
  });
}

// Mailbox: inputs; for each output dtype, rank, shape; grid and threadgroup (three numbers each); template kinds and
// values. Text: the template arguments' names.
int32_t mlxlm_call_kernel(
    int32_t kernel, int32_t inputs, int32_t outputs, const char* names, int32_t length, double init_value,
    bool verbose) {
  return guarded([&] {
    if (kernel < 0 || kernel >= static_cast<int32_t>(kernels().size())) {
      throw std::invalid_argument("unknown kernel " + std::to_string(kernel));
    }
    MailReader mail;
    auto arrays = mail.arrays(inputs);
    std::vector<mx::Shape> shapes;
    std::vector<mx::Dtype> dtypes;
    for (int32_t i = 0; i < outputs; ++i) {
      auto [dtype, rank] = mail.pair(2);
      dtypes.push_back(dtype_of(dtype));
      shapes.push_back(mail.shape(rank));
    }
    auto grid = mail.triple(3);
    auto threadgroup = mail.triple(3);
    auto arguments = template_arguments(mail, fields(names, length));
    return put_all(kernels()[kernel](
        arrays, shapes, dtypes, grid, threadgroup, arguments, maybe_float(init_value), verbose, current_stream()));
  });
}

} // extern "C"
