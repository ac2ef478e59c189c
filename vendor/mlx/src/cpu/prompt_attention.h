// Attention of many queries. Lanes are rows (a query of one head each), so that neither keys nor values need to be
// transposed, and the softmax of a row is a matter of its lane alone: scores are kept as (keys, rows), outputs as
// (dims, rows).
#pragma once

#include "cpu/attention_parts.h"

namespace mlxlm::cpu::MLXLM_ISA {

constexpr int64_t step = 2 * lanes; // rows that a product goes through at once
constexpr int unrolled = lanes == 16 ? 8 : 4; // keys or dims that it does for them: as many as there are registers for

// A row of numbers as floats.
template <Float type>
inline void unpack(const void* from, float* to, int64_t dims) {
  for (int64_t d = 0; d < dims; d += lanes) {
    store(to + d, load_as(type, from, d));
  }
}

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

inline int64_t tasks(const Attention& a) {
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

inline size_t scratch_bytes(const Attention& a) {
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

inline void attend(const Attention& a, int64_t task, void* scratch) {
  with_type(a.type, [&](auto type) { attend_typed<decltype(type)::value>(a, task, scratch); });
}

} // namespace mlxlm::cpu::MLXLM_ISA
