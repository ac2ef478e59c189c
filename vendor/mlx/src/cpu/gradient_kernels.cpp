// Gradients of norms and gates, and cross entropy, for one instruction set.
#include "cpu/gradients.h"

#include "cpu/exponentials.h"
#include "cpu/typed.h"

namespace mlxlm::cpu::MLXLM_ISA {
namespace {

void norm(const Norm& norm, const void* x, const void* slope, void* out) {
  with_type(norm.type, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    auto weighted = [&](int64_t i, int count) {
      F value = get(type, slope, i, count);
      return norm.weight ? value * get(type, norm.weight, i, count) : value;
    };
    F squares = {};
    F products = {};
    for_vectors(0, norm.dims, [&](int64_t i, int count) {
      F value = get(type, x, i, count);
      squares += value * value;
      products += value * weighted(i, count);
    });
    float dims = static_cast<float>(norm.dims);
    float factor = 1.0f / __builtin_sqrtf(sum(squares) / dims + norm.eps);
    float along = factor * factor * factor * sum(products) / dims;
    for_vectors(0, norm.dims, [&](int64_t i, int count) {
      put(type, out, i, weighted(i, count) * factor - get(type, x, i, count) * along, count);
    });
  });
}

void gate(Gate kind, Float of, const void* g, const void* x, const void* slope, void* of_g, void* of_x, int64_t count) {
  with_type(of, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    for_vectors(0, count, [&](int64_t i, int some) {
      F value = get(type, g, i, some);
      F from = get(type, slope, i, some);
      // Both gates are g σ(u): u is g, or gelu's polynomial of it.
      F square = value * value;
      F open = sigmoid(kind == Gate::silu ? value : 1.59576912f * value * (1.0f + 0.044715f * square));
      F inner = kind == Gate::silu ? splat(1.0f) : 1.59576912f * (1.0f + 0.134145f * square);
      F derivative = open + value * open * (1.0f - open) * inner;
      put(type, of_g, i, from * get(type, x, i, some) * derivative, some);
      put(type, of_x, i, from * value * open, some);
    });
  });
}

void cross_entropy(Float of, const void* x, int64_t target, void* out, int64_t count) {
  with_type(of, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    if (target < 0 || target >= count) {
      put(type, out, 0, splat(__builtin_nanf("")), 1);
      return;
    }
    auto [largest, sum] = exponentials(type, x, count);
    float score = load_some_as(type, x, target, 1)[0];
    put(type, out, 0, splat(__builtin_logf(sum) + (largest - score)), 1);
  });
}

void cross_entropy_slope(Float of, const void* x, int64_t target, const void* slope, void* out, int64_t count) {
  with_type(of, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    auto [largest, sum] = exponentials(type, x, count);
    float factor = load_some_as(type, slope, 0, 1)[0];
    float share = factor / sum;
    for_vectors(0, count, [&](int64_t i, int some) {
      put(type, out, i, exp(get(type, x, i, some) - largest) * share, some);
    });
    if (target >= 0 && target < count) {
      F there = exp(load_some_as(type, x, target, 1) - largest) * share - factor;
      store_some_as(type, out, target, there, 1);
    }
  });
}

} // namespace

const GradientKernels gradient_kernels = {norm, gate, cross_entropy, cross_entropy_slope};

} // namespace mlxlm::cpu::MLXLM_ISA
