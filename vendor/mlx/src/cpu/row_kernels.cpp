// Norms, rotations, gates and softmax of rows, for one instruction set.
#include "cpu/rows.h"

#include "cpu/exponentials.h"
#include "cpu/math.h"
#include "cpu/typed.h"
#include "cpu/vec.h"

namespace mlxlm::cpu::MLXLM_ISA {
namespace {

// Calls body(i, count) for all whole vectors, then for what is left.
template <class Body>
inline void for_vectors(int64_t dims, Body&& body) {
  int64_t i = 0;
  for (; i + lanes <= dims; i += lanes) {
    body(i, lanes);
  }
  if (i < dims) {
    body(i, static_cast<int>(dims - i));
  }
}

template <Float type>
inline F get(const void* from, int64_t i, int count) {
  return count == lanes ? load_as(type, from, i) : load_some_as(type, from, i, count);
}

template <Float type>
inline void put(void* to, int64_t i, F value, int count) {
  count == lanes ? store_as(type, to, i, value) : store_some_as(type, to, i, value, count);
}

// As it will be read again.
template <Float type>
inline F rounded(F value) {
  if constexpr (type == Float::bf16) {
    return widen_bf16(narrow_bf16(value));
  } else if constexpr (type == Float::f16) {
    return widen_f16(narrow_f16(value));
  } else {
    return value;
  }
}

// 1 / √(mean of squares + eps)
inline float inverse_size(float squares, const Norm& norm) {
  return 1.0f / __builtin_sqrtf(squares / static_cast<float>(norm.dims) + norm.eps);
}

void normalize(const Norm& norm, const void* x, const void* delta, void* sum, void* out) {
  with_type(norm.type, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    F squares = {};
    for_vectors(norm.dims, [&](int64_t i, int count) {
      F value = get<type>(x, i, count);
      if (delta) {
        value = rounded<type>(value + get<type>(delta, i, count));
        put<type>(sum, i, value, count);
      }
      squares += value * value;
    });
    F factor = splat(inverse_size(cpu::MLXLM_ISA::sum(squares), norm));
    const void* from = delta ? sum : x;
    for_vectors(norm.dims, [&](int64_t i, int count) {
      F value = rounded<type>(get<type>(from, i, count) * factor);
      put<type>(out, i, norm.weight ? value * get<type>(norm.weight, i, count) : value, count);
    });
  });
}

void rotate(const Rotation& rotation, const Norm* norm, const void* x, void* out) {
  with_type(rotation.type, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    constexpr int64_t size = type == Float::f32 ? 4 : 2;
    if (norm) {
      normalize(*norm, x, nullptr, nullptr, out);
      x = out;
    }
    int64_t half = rotation.rotated / 2;
    auto low = static_cast<const char*>(x);
    auto high = low + half * size;
    auto to = static_cast<char*>(out);
    for_vectors(half, [&](int64_t i, int count) {
      F a = get<type>(low, i, count);
      F b = get<type>(high, i, count);
      // Angles have the rows' precision, as in MLX.
      F cosine = rounded<type>(get<Float::f32>(rotation.cosines, i, count));
      F sine = rounded<type>(get<Float::f32>(rotation.sines, i, count));
      put<type>(to, i, rounded<type>(a * cosine) - rounded<type>(b * sine), count);
      put<type>(to + half * size, i, rounded<type>(b * cosine) + rounded<type>(a * sine), count);
    });
    if (!norm && rotation.rotated < rotation.dims) {
      std::memcpy(to + rotation.rotated * size, low + rotation.rotated * size, (rotation.dims - rotation.rotated) * size);
    }
  });
}

void gate(Gate kind, Float of, const void* g, const void* x, void* out, int64_t count) {
  with_type(of, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    for_vectors(count, [&](int64_t i, int some) {
      F value = get<type>(g, i, some);
      F opened = kind == Gate::silu ? rounded<type>(value * rounded<type>(sigmoid(value))) : gelu_by_tanh(value);
      put<type>(out, i, rounded<type>(opened) * get<type>(x, i, some), some);
    });
  });
}

void add(Float of, const void* a, const void* b, void* out, int64_t count) {
  with_type(of, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    for_vectors(count, [&](int64_t i, int some) {
      put<type>(out, i, get<type>(a, i, some) + get<type>(b, i, some), some);
    });
  });
}

void softmax(Float of, const void* x, void* out, int64_t count) {
  with_type(of, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    auto [largest, sum] = exponentials(type, x, count);
    float inverse = 1.0f / sum;
    for_vectors(count, [&](int64_t i, int some) {
      put<type>(out, i, exp(get<type>(x, i, some) - largest) * inverse, some);
    });
  });
}

void log_sum_exp(Float of, const void* x, void* out, int64_t count) {
  with_type(of, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    auto [largest, sum] = exponentials(type, x, count);
    // Infinite terms stay what they are: infinity less infinity is no number.
    bool infinite = __builtin_isinf(largest);
    put<type>(out, 0, splat(infinite ? largest : __builtin_logf(sum) + largest), 1);
  });
}

uint32_t argmax(Float of, const void* x, int64_t count) {
  uint32_t place = 0;
  with_type(of, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    F most = splat(minus_infinity);
    // The number of the vector in which each lane has its highest.
    I vectors = {};
    I unknown = {};
    for_vectors(count, [&](int64_t i, int some) {
      F value = get<type>(x, i, some);
      for (int lane = some; lane < lanes; ++lane) {
        value[lane] = minus_infinity;
      }
      unknown |= (I)(value != value);
      auto higher = value > most;
      most = higher ? value : most;
      vectors = higher ? I{} + static_cast<int32_t>(i / lanes) : vectors;
    });
    float highest = max(most);
    int64_t first = count;
    for (int lane = 0; lane < lanes; ++lane) {
      int64_t own = static_cast<int64_t>(vectors[lane]) * lanes + lane;
      first = most[lane] == highest && own < first ? own : first;
    }
    bool is_unknown = false;
    for (int lane = 0; lane < lanes; ++lane) {
      is_unknown |= unknown[lane] != 0;
    }
    auto is_nan = [&](int64_t i) {
      float value = get<type>(x, i, 1)[0];
      return value != value;
    };
    if (is_unknown) {
      for (first = 0; !is_nan(first);) {
        ++first;
      }
    } else if (highest == minus_infinity) {
      first = 0;
    }
    place = static_cast<uint32_t>(first);
  });
  return place;
}

} // namespace

const RowKernels row_kernels = {normalize, rotate, gate, add, softmax, log_sum_exp, argmax};

} // namespace mlxlm::cpu::MLXLM_ISA
