// Attention for one instruction set.
#include "cpu/attention.h"

#include "cpu/math.h"
#include "cpu/typed.h"
#include "cpu/vec.h"

namespace mlxlm::cpu::MLXLM_ISA {
namespace {

// What a masked score becomes, as in MLX: the least finite number, so that a row without any key is an average.
inline float masked_score(Float type) {
  return type == Float::f16 ? -65504.0f : type == Float::bf16 ? -0x1.FEp127f : -0x1.FFFFFEp127f;
}

inline const void* at(const void* base, int64_t element, Float type) {
  return static_cast<const char*>(base) + element * (type == Float::f32 ? 4 : 2);
}
inline void* at(void* base, int64_t element, Float type) {
  return static_cast<char*>(base) + element * (type == Float::f32 ? 4 : 2);
}

inline float number(const void* from, Float type) {
  return load_some_as(type, from, 0, 1)[0];
}

// A row of numbers as floats.
template <Float type>
inline void unpack(const void* from, float* to, int64_t dims) {
  for (int64_t d = 0; d < dims; d += lanes) {
    store(to + d, load_as(type, from, d));
  }
}

inline float mask_at(const Attention& a, int64_t element, float score) {
  switch (a.mask_kind) {
    case Mask::boolean:
      return static_cast<const bool*>(a.mask)[element] ? score : masked_score(a.type);
    case Mask::f32:
      return score + static_cast<const float*>(a.mask)[element];
    case Mask::bf16:
      return score + number(static_cast<const uint16_t*>(a.mask) + element, Float::bf16);
    case Mask::f16:
      return score + number(static_cast<const uint16_t*>(a.mask) + element, Float::f16);
    default:
      return score;
  }
}

// --- many queries
//
// Lanes are rows (a query of one head each), so that neither keys nor values need to be transposed, and the softmax of a
// row is a matter of its lane alone: scores are kept as (keys, rows), outputs as (dims, rows).

constexpr int64_t step = 2 * lanes; // rows that a product goes through at once
constexpr int unrolled = lanes == 16 ? 8 : 4; // keys or dims that it does for them: as many as there are registers for

struct Block {
  int64_t batch;
  int64_t kv_head;
  int64_t first; // query
  int64_t queries;
  int64_t rows; // queries of all heads
  int64_t padded; // to whole steps
};

// Queries of a block: so many that unpacking keys is a small part of the work, and all fits into the second cache.
inline int64_t queries_a_block(const Attention& a) {
  int64_t queries = 128 / a.group;
  queries = queries < 8 ? 8 : queries;
  return queries < a.length ? queries : a.length;
}

inline int64_t padded_rows(int64_t rows) {
  return (rows + step - 1) / step * step;
}

inline Block block_of(const Attention& a, int64_t task) {
  int64_t size = queries_a_block(a);
  int64_t blocks = (a.length + size - 1) / size;
  int64_t kv_heads = a.heads / a.group;
  int64_t first = task % blocks * size;
  int64_t queries = a.length - first < size ? a.length - first : size;
  int64_t rows = queries * a.group;
  return {task / blocks / kv_heads, task / blocks % kv_heads, first, queries, rows, padded_rows(rows)};
}

int64_t tasks(const Attention& a) {
  int64_t size = queries_a_block(a);
  return a.batch * (a.heads / a.group) * ((a.length + size - 1) / size);
}

struct Scratch {
  float* queries; // (D, rows)
  float* outputs; // (D, rows)
  float* scores; // (key_block, rows)
  float* keys; // (key_block, D)
  float* values; // (key_block, D)
  float* largest; // (rows)
  float* sums; // (rows)
  float* factors; // (rows)
};

inline size_t lay_out(const Attention& a, float* base, Scratch* scratch) {
  int64_t rows = padded_rows(queries_a_block(a) * a.group);
  float* next = base;
  auto take = [&](int64_t count) {
    float* taken = next;
    next += (count + 15) / 16 * 16;
    return taken;
  };
  Scratch laid = {take(a.dims * rows), take(a.dims * rows), take(key_block * rows), take(key_block * a.dims),
                  take(key_block * a.dims), take(rows), take(rows), take(rows)};
  if (scratch) {
    *scratch = laid;
  }
  return (next - base) * sizeof(float);
}

size_t scratch_bytes(const Attention& a) {
  return lay_out(a, nullptr, nullptr);
}

// out (n, rows) (+)= w (n, k) × x (k, rows), `n` a multiple of `unrolled`.
template <bool add>
inline void
product(const float* w, int64_t w_row, int64_t w_step, const float* x, float* out, int64_t n, int64_t k, int64_t rows) {
  for (int64_t r = 0; r < rows; r += step) {
    for (int64_t i = 0; i < n; i += unrolled) {
      F sums[unrolled][2];
#pragma GCC unroll 8
      for (int j = 0; j < unrolled; ++j) {
        sums[j][0] = add ? load(out + (i + j) * rows + r) : F{};
        sums[j][1] = add ? load(out + (i + j) * rows + r + lanes) : F{};
      }
      const float* weights = w + i * w_row;
      for (int64_t d = 0; d < k; ++d) {
        F low = load(x + d * rows + r);
        F high = load(x + d * rows + r + lanes);
#pragma GCC unroll 8
        for (int j = 0; j < unrolled; ++j) {
          F weight = splat(weights[j * w_row + d * w_step]);
          sums[j][0] += weight * low;
          sums[j][1] += weight * high;
        }
      }
#pragma GCC unroll 8
      for (int j = 0; j < unrolled; ++j) {
        store(out + (i + j) * rows + r, sums[j][0]);
        store(out + (i + j) * rows + r + lanes, sums[j][1]);
      }
    }
  }
}

// Applies causality and mask to the scores of keys [from, from + count).
inline void mask_scores(const Attention& a, const Block& block, float* scores, int64_t from, int64_t count) {
  int64_t before = a.total - a.length;
  bool cut = a.causal && from + count - 1 > before + block.first;
  if (!cut && a.mask_kind == Mask::none) {
    return;
  }
  for (int64_t g = 0; g < a.group; ++g) {
    for (int64_t t = 0; t < block.queries; ++t) {
      int64_t query = block.first + t;
      float* row = scores + g * block.queries + t;
      if (a.mask_kind != Mask::none) {
        int64_t element = block.batch * a.mask_strides[0] + (block.kv_head * a.group + g) * a.mask_strides[1] +
            query * a.mask_strides[2] + from * a.mask_strides[3];
        for (int64_t s = 0; s < count; ++s) {
          row[s * block.padded] = mask_at(a, element + s * a.mask_strides[3], row[s * block.padded]);
        }
      }
      if (a.causal) {
        int64_t last = before + query - from;
        for (int64_t s = last + 1 < 0 ? 0 : last + 1; s < count; ++s) {
          row[s * block.padded] = minus_infinity;
        }
      }
    }
  }
}

template <Float type>
void attend_typed(const Attention& a, int64_t task, void* memory) {
  Block block = block_of(a, task);
  Scratch scratch;
  lay_out(a, static_cast<float*>(memory), &scratch);
  int64_t rows = block.padded;
  for (int64_t g = 0; g < a.group; ++g) {
    int64_t head = block.kv_head * a.group + g;
    float sink = a.sinks ? number(at(a.sinks, head, type), type) : minus_infinity;
    for (int64_t t = 0; t < block.queries; ++t) {
      int64_t row = g * block.queries + t;
      const void* query = at(
          a.q, block.batch * a.q_strides[0] + head * a.q_strides[1] + (block.first + t) * a.q_strides[2], type);
      for (int64_t d = 0; d < a.dims; d += lanes) {
        F part = load_as(type, query, d) * a.scale;
        for (int i = 0; i < lanes; ++i) {
          scratch.queries[(d + i) * rows + row] = part[i];
        }
      }
      scratch.largest[row] = sink;
      scratch.sums[row] = a.sinks ? 1.0f : 0.0f;
    }
  }
  for (int64_t row = block.rows; row < rows; ++row) {
    for (int64_t d = 0; d < a.dims; ++d) {
      scratch.queries[d * rows + row] = 0;
    }
    scratch.largest[row] = minus_infinity;
    scratch.sums[row] = 0;
  }
  std::memset(scratch.outputs, 0, a.dims * rows * sizeof(float));

  int64_t end = a.causal ? a.total - a.length + block.first + block.queries : a.total;
  int64_t keys_base = block.batch * a.k_strides[0] + block.kv_head * a.k_strides[1];
  int64_t values_base = block.batch * a.v_strides[0] + block.kv_head * a.v_strides[1];
  for (int64_t from = 0; from < end; from += key_block) {
    int64_t count = end - from < key_block ? end - from : key_block;
    int64_t padded = (count + unrolled - 1) / unrolled * unrolled;
    for (int64_t s = 0; s < count; ++s) {
      unpack<type>(at(a.k, keys_base + (from + s) * a.k_strides[2], type), scratch.keys + s * a.dims, a.dims);
      unpack<type>(at(a.v, values_base + (from + s) * a.v_strides[2], type), scratch.values + s * a.dims, a.dims);
    }
    std::memset(scratch.keys + count * a.dims, 0, (padded - count) * a.dims * sizeof(float));
    product<false>(scratch.keys, a.dims, 1, scratch.queries, scratch.scores, padded, a.dims, rows);
    mask_scores(a, block, scratch.scores, from, count);

    for (int64_t r = 0; r < rows; r += lanes) {
      F before = load(scratch.largest + r);
      F largest = before;
      for (int64_t s = 0; s < count; ++s) {
        largest = larger(largest, load(scratch.scores + s * rows + r));
      }
      // A row that has seen no key yet: -∞ minus -∞ is no number.
      F base = largest == minus_infinity ? F{} : largest;
      F factor = exp(before - base);
      F sums = load(scratch.sums + r) * factor;
      for (int64_t s = 0; s < count; ++s) {
        F weight = exp(load(scratch.scores + s * rows + r) - base);
        store(scratch.scores + s * rows + r, weight);
        sums += weight;
      }
      store(scratch.largest + r, largest);
      store(scratch.sums + r, sums);
      store(scratch.factors + r, factor);
    }
    if (from > 0) {
      for (int64_t d = 0; d < a.dims; ++d) {
        for (int64_t r = 0; r < rows; r += lanes) {
          float* out = scratch.outputs + d * rows + r;
          store(out, load(out) * load(scratch.factors + r));
        }
      }
    }
    product<true>(scratch.values, 1, a.dims, scratch.scores, scratch.outputs, a.dims, count, rows);
  }

  for (int64_t g = 0; g < a.group; ++g) {
    for (int64_t t = 0; t < block.queries; ++t) {
      int64_t row = g * block.queries + t;
      float inverse = 1.0f / scratch.sums[row];
      void* out = at(
          a.out,
          block.batch * a.out_strides[0] + (block.kv_head * a.group + g) * a.out_strides[1] +
              (block.first + t) * a.out_strides[2],
          type);
      for (int64_t d = 0; d < a.dims; d += lanes) {
        F part;
        for (int i = 0; i < lanes; ++i) {
          part[i] = scratch.outputs[(d + i) * rows + row] * inverse;
        }
        store_as(type, out, d, part);
      }
    }
  }
}

void attend(const Attention& a, int64_t task, void* scratch) {
  with_type(a.type, [&](auto type) { attend_typed<decltype(type)::value>(a, task, scratch); });
}

// --- one query a head

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

void attend_one(const Attention& a, int64_t pair, int64_t from, int64_t to, float* partial) {
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

void combine(
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

} // namespace

const AttentionKernels attention_kernels = {tasks, attend, scratch_bytes, attend_one, combine};

} // namespace mlxlm::cpu::MLXLM_ISA
