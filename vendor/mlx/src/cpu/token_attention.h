// Attention of one query a head: keys are read where they lie, four at a time.
#pragma once

#include "cpu/attention_parts.h"

namespace mlxlm::cpu::MLXLM_ISA {

// Rows of one head, those that are read.
struct Rows {
  const char* first;
  int64_t stride; // in bytes
  int64_t bytes; // of a row
  int64_t count;

  const void* at(int64_t row) const {
    return first + row * stride;
  }
  void fetch(int64_t row) const {
    if (row < count) {
      for (int64_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch(first + row * stride + i);
        asm volatile(""); // or the compiler takes this for a loop that does nothing
      }
    }
  }
  // So many rows ahead are asked for. By itself the machine fetches half as fast: a block's rows are few, and four of them
  // abreast look to it like no stream.
  int64_t ahead() const {
    return fetched_ahead / 2 / bytes;
  }
};

// Scores of `heads` queries (heads, D) with `count` keys, to (heads, key_block): four keys at a time, whose sums over
// lanes are then taken together.
template <Float type, int heads>
inline void dots(
    const Attention& a, const float* queries, const Rows& keys, const Rows& values, int64_t first, int64_t count,
    float* scores) {
  constexpr int abreast = 4;
  int64_t ahead = first + keys.ahead();
  for (int64_t s = 0; s < count; s += abreast) {
    const void* rows[abreast];
    for (int i = 0; i < abreast; ++i) {
      // Behind the last key comes the last again: its score is not used.
      rows[i] = keys.at(first + (s + i < count ? s + i : count - 1));
    }
    for (int i = 0; i < abreast; ++i) {
      int64_t next = ahead + s + i;
      next < keys.count ? keys.fetch(next) : values.fetch(next - keys.count);
    }
    F sums[heads][abreast] = {};
    for (int64_t d = 0; d < a.dims; d += lanes) {
      F parts[abreast];
#pragma GCC unroll 4
      for (int i = 0; i < abreast; ++i) {
        parts[i] = load_as(type, rows[i], d);
      }
#pragma GCC unroll 4
      for (int h = 0; h < heads; ++h) {
        F query = load(queries + h * a.dims + d);
#pragma GCC unroll 4
        for (int i = 0; i < abreast; ++i) {
          sums[h][i] += parts[i] * query;
        }
      }
    }
#pragma GCC unroll 4
    for (int h = 0; h < heads; ++h) {
      F results = sums_of(sums[h]);
      std::memcpy(scores + h * key_block + s, &results, abreast * sizeof(float));
    }
  }
}

// outputs (heads, D) += weights (heads, key_block) × values
template <Float type, int heads>
inline void weigh(
    const Attention& a, const float* weights, const Rows& values, int64_t first, int64_t count, float* outputs) {
  constexpr int vectors = 4;
  for (int64_t d = 0; d < a.dims; d += vectors * lanes) {
    int some = static_cast<int>((a.dims - d) / lanes < vectors ? (a.dims - d) / lanes : vectors);
    auto add = [&](auto constant) {
      constexpr int n = decltype(constant)::value;
      F sums[heads][n];
      for (int h = 0; h < heads; ++h) {
        for (int i = 0; i < n; ++i) {
          sums[h][i] = load(outputs + h * a.dims + d + i * lanes);
        }
      }
      for (int64_t s = 0; s < count; ++s) {
        const void* value = values.at(first + s);
        if (d == 0) {
          values.fetch(first + s + values.ahead());
        }
        F parts[n];
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) {
          parts[i] = load_as(type, value, d + i * lanes);
        }
#pragma GCC unroll 4
        for (int h = 0; h < heads; ++h) {
          F weight = splat(weights[h * key_block + s]);
#pragma GCC unroll 4
          for (int i = 0; i < n; ++i) {
            sums[h][i] += weight * parts[i];
          }
        }
      }
      for (int h = 0; h < heads; ++h) {
        for (int i = 0; i < n; ++i) {
          store(outputs + h * a.dims + d + i * lanes, sums[h][i]);
        }
      }
    };
    switch (some) {
      case 1:
        add(Constant<1>());
        break;
      case 2:
        add(Constant<2>());
        break;
      case 3:
        add(Constant<3>());
        break;
      default:
        add(Constant<4>());
    }
  }
}

// `heads` of a group's queries, from the first on.
template <Float type, int heads>
void attend_heads(
    const Attention& a, int64_t batch, int64_t kv_head, int64_t first, int64_t from, int64_t to, float* partial) {
  alignas(64) float queries[heads * largest_dims];
  alignas(64) float scores[heads * key_block];
  alignas(64) float outputs[heads * largest_dims];
  float largest[heads];
  float sums[heads];
  int64_t head = kv_head * a.group + first;
  for (int h = 0; h < heads; ++h) {
    const void* query = at(a.q, batch * a.q_strides[0] + (head + h) * a.q_strides[1], type);
    for (int64_t d = 0; d < a.dims; d += lanes) {
      store(queries + h * a.dims + d, load_as(type, query, d) * a.scale);
      store(outputs + h * a.dims + d, F{});
    }
    largest[h] = minus_infinity;
    sums[h] = 0;
  }
  auto rows_of = [&](const void* base, const int64_t (&strides)[3]) -> Rows {
    constexpr int64_t size = type == Float::f32 ? 4 : 2;
    int64_t start = batch * strides[0] + kv_head * strides[1] + from * strides[2];
    return {static_cast<const char*>(base) + start * size, strides[2] * size, a.dims * size, to - from};
  };
  Rows keys = rows_of(a.k, a.k_strides);
  Rows values = rows_of(a.v, a.v_strides);
  for (int64_t start = from; start < to; start += key_block) {
    int64_t count = to - start < key_block ? to - start : key_block;
    dots<type, heads>(a, queries, keys, values, start - from, count, scores);
    for (int h = 0; h < heads; ++h) {
      float* row = scores + h * key_block;
      if (a.mask_kind != Mask::none) {
        int64_t element = batch * a.mask_strides[0] + (head + h) * a.mask_strides[1] + start * a.mask_strides[3];
        for (int64_t s = 0; s < count; ++s) {
          row[s] = mask_at(a, element + s * a.mask_strides[3], row[s]);
        }
      }
      for (int64_t s = count; s < key_block; ++s) {
        row[s] = minus_infinity;
      }
      F most = splat(largest[h]);
      for (int64_t s = 0; s < key_block; s += lanes) {
        most = larger(most, load(row + s));
      }
      float now = max(most);
      F base = splat(now == minus_infinity ? 0.0f : now);
      F factor = exp(splat(largest[h]) - base);
      F total = {};
      for (int64_t s = 0; s < key_block; s += lanes) {
        F weight = exp(load(row + s) - base);
        store(row + s, weight);
        total += weight;
      }
      sums[h] = sums[h] * factor[0] + sum(total);
      largest[h] = now;
      if (start > from) {
        for (int64_t d = 0; d < a.dims; d += lanes) {
          float* out = outputs + h * a.dims + d;
          store(out, load(out) * factor);
        }
      }
    }
    weigh<type, heads>(a, scores, values, start - from, count, outputs);
  }
  for (int h = 0; h < heads; ++h) {
    float* part = partial + (first + h) * (a.dims + 2);
    part[0] = largest[h];
    part[1] = sums[h];
    std::memcpy(part + 2, outputs + h * a.dims, a.dims * sizeof(float));
  }
}

inline void attend_one(const Attention& a, int64_t pair, int64_t from, int64_t to, float* partial) {
  int64_t kv_heads = a.heads / a.group;
  int64_t batch = pair / kv_heads;
  int64_t kv_head = pair % kv_heads;
  with_type(a.type, [&](auto known) {
    constexpr Float type = decltype(known)::value;
    for (int64_t first = 0; first < a.group;) {
      int64_t left = a.group - first;
      if (left >= 4) {
        attend_heads<type, 4>(a, batch, kv_head, first, from, to, partial);
        first += 4;
      } else if (left >= 2) {
        attend_heads<type, 2>(a, batch, kv_head, first, from, to, partial);
        first += 2;
      } else {
        attend_heads<type, 1>(a, batch, kv_head, first, from, to, partial);
        first += 1;
      }
    }
  });
}

inline void combine(
    const Attention& a, int64_t batch, int64_t head, const float* partial, int64_t parts, int64_t stride) {
  float largest = a.sinks ? number(at(a.sinks, head, a.type), a.type) : minus_infinity;
  for (int64_t i = 0; i < parts; ++i) {
    largest = partial[i * stride] > largest ? partial[i * stride] : largest;
  }
  F base = splat(largest);
  float total = a.sinks ? exp(splat(number(at(a.sinks, head, a.type), a.type)) - base)[0] : 0.0f;
  alignas(64) float outputs[largest_dims] = {};
  for (int64_t i = 0; i < parts; ++i) {
    const float* part = partial + i * stride;
    F factor = exp(splat(part[0]) - base);
    total += part[1] * factor[0];
    for (int64_t d = 0; d < a.dims; d += lanes) {
      store(outputs + d, load(outputs + d) + load(part + 2 + d) * factor);
    }
  }
  void* out = at(a.out, batch * a.out_strides[0] + head * a.out_strides[1], a.type);
  F inverse = splat(1.0f / total);
  for (int64_t d = 0; d < a.dims; d += lanes) {
    store_as(a.type, out, d, load(outputs + d) * inverse);
  }
}

} // namespace mlxlm::cpu::MLXLM_ISA
