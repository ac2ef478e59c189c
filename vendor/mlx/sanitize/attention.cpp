#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "checks.h"
#include "memory.h"
#include "numbers.h"

namespace mlxlm::check {
namespace {

using cpu::Attention;
using cpu::Mask;

// How (B, H, T, D) lies in memory.
enum class Layout {
  heads_first, // in order
  lengths_first, // (B, T, H, D)
  with_room, // in order, with room for more rows behind those of each head
};

// Random numbers in an array of four axes that ends with its last element, and as doubles in order.
struct Rows {
  Rows(Float type, Layout layout, int64_t batch, int64_t heads, int64_t length, int64_t dims, Random& random)
      : type(type), heads(heads), length(length), dims(dims), values(batch * heads * length * dims) {
    int64_t rows = layout == Layout::with_room ? length + 11 : length;
    bool turned = layout == Layout::lengths_first;
    strides[0] = heads * rows * dims;
    strides[1] = turned ? dims : rows * dims;
    strides[2] = turned ? heads * dims : dims;
    int64_t last = (batch - 1) * strides[0] + (heads - 1) * strides[1] + (length - 1) * strides[2];
    memory = std::make_unique<Exact>((last + dims) * size_of(type));
    for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
      int64_t row = i / dims;
      values[i] = random.number();
      put(type, memory->data(), place(row / length / heads, row / length % heads, row % length) + i % dims, values[i]);
    }
  }
  int64_t place(int64_t b, int64_t h, int64_t t) const {
    return b * strides[0] + h * strides[1] + t * strides[2];
  }
  const double* at(int64_t b, int64_t h, int64_t t) const {
    return &values[((b * heads + h) * length + t) * dims];
  }

  Float type;
  int64_t heads;
  int64_t length;
  int64_t dims;
  int64_t strides[3];
  std::unique_ptr<Exact> memory;
  std::vector<double> values;
};

struct Case {
  Float type;
  int64_t batch;
  int64_t heads;
  int64_t group;
  int64_t length;
  int64_t total;
  int64_t dims;
  bool causal;
  bool with_sinks;
  Mask mask;
  bool mask_per_head; // else one for all batches and heads
  Layout layout;

  std::string name() const {
    constexpr const char* masks[] = {"no", "boolean", "f32", "f16", "bf16"};
    constexpr Mask kinds[] = {Mask::none, Mask::boolean, Mask::f32, Mask::f16, Mask::bf16};
    auto kind = std::find(std::begin(kinds), std::end(kinds), mask) - std::begin(kinds);
    return std::string("attention in ") + name_of(type) + ", heads " + std::to_string(heads) + " / " +
        std::to_string(group) + ", T " + std::to_string(length) + ", S " + std::to_string(total) + ", D " +
        std::to_string(dims) + (causal ? ", causal" : "") + (with_sinks ? ", sinks, " : ", ") + masks[kind] + " mask";
  }
};

Float type_of(Mask mask) {
  return mask == Mask::f32 ? Float::f32 : mask == Mask::f16 ? Float::f16 : Float::bf16;
}

// What stands for a masked score: so low that nothing is left of it, but a row of nothing else is an average.
constexpr double masked = -1e30;

// A mask and the number that each score gets from it; NaN for one that it takes out.
struct Masks {
  Masks(const Case& c, Random& random) {
    int64_t of_head = c.length * c.total;
    int64_t of_batch = c.mask_per_head ? c.heads * of_head : 0;
    int64_t count = c.mask_per_head ? c.batch * of_batch : of_head;
    bool boolean = c.mask == Mask::boolean;
    memory = std::make_unique<Exact>(c.mask == Mask::none ? 0 : count * (boolean ? 1 : size_of(type_of(c.mask))));
    int64_t all_strides[] = {of_batch, c.mask_per_head ? of_head : 0, c.total, 1};
    std::copy(std::begin(all_strides), std::end(all_strides), strides);
    if (c.mask == Mask::none) {
      return;
    }
    values.resize(count);
    for (int64_t i = 0; i < count; ++i) {
      // Whole blocks of keys taken out at the front of some rows; the last key stays everywhere, since where all scores
      // are infinite there is no result. A row that is false everywhere is an average.
      int64_t row = i / c.total;
      int64_t key = i % c.total;
      bool keeps = key == c.total - 1 || (row % 3 == 0 ? key > 70 : random.below(3) > 0);
      if (boolean) {
        keeps = keeps && row % 5 != 4;
        memory->data<bool>()[i] = keeps;
        values[i] = keeps ? 0 : NAN;
      } else {
        values[i] = keeps ? random.number() : -INFINITY;
        put(type_of(c.mask), memory->data(), i, values[i]);
      }
    }
  }

  std::unique_ptr<Exact> memory;
  int64_t strides[4];
  std::vector<double> values;
};

// One row of outputs, as it is defined.
std::vector<double> attend(
    const Case& c, const Rows& q, const Rows& k, const Rows& v, const Masks& mask, const std::vector<double>& sinks,
    double scale, int64_t b, int64_t h, int64_t t) {
  int64_t end = c.causal ? c.total - c.length + t + 1 : c.total;
  std::vector<double> scores(end);
  double largest = c.with_sinks ? sinks[h] : -INFINITY;
  const double* query = q.at(b, h, t);
  for (int64_t s = 0; s < end; ++s) {
    double score = std::inner_product(query, query + c.dims, k.at(b, h / c.group, s), 0.0) * scale;
    if (c.mask != Mask::none) {
      double change = mask.values[b * mask.strides[0] + h * mask.strides[1] + t * mask.strides[2] + s];
      score = std::isnan(change) ? masked : score + change;
    }
    scores[s] = score;
    largest = std::max(largest, score);
  }
  double sum = c.with_sinks ? std::exp(sinks[h] - largest) : 0;
  std::vector<double> out(c.dims);
  for (int64_t s = 0; s < end; ++s) {
    double weight = std::exp(scores[s] - largest);
    const double* value = v.at(b, h / c.group, s);
    sum += weight;
    for (int64_t d = 0; d < c.dims; ++d) {
      out[d] += weight * value[d];
    }
  }
  for (double& value : out) {
    value /= sum;
  }
  return out;
}

void check_case(const Case& c, Random& random) {
  int64_t kv_heads = c.heads / c.group;
  Rows q(c.type, c.layout, c.batch, c.heads, c.length, c.dims, random);
  Rows k(c.type, c.layout, c.batch, kv_heads, c.total, c.dims, random);
  Rows v(c.type, c.layout, c.batch, kv_heads, c.total, c.dims, random);
  Rows out(c.type, c.layout, c.batch, c.heads, c.length, c.dims, random);
  std::memset(out.memory->data(), 0xff, out.memory->size());
  Masks mask(c, random);
  std::vector<double> sinks(c.heads);
  Exact sinks_memory(c.heads * size_of(c.type));
  for (int64_t h = 0; h < c.heads; ++h) {
    sinks[h] = random.number();
    put(c.type, sinks_memory.data(), h, sinks[h]);
  }

  Attention a = {};
  a.type = c.type;
  a.batch = c.batch;
  a.heads = c.heads;
  a.group = c.group;
  a.length = c.length;
  a.total = c.total;
  a.dims = c.dims;
  a.scale = 1 / std::sqrt(static_cast<float>(c.dims));
  a.causal = c.causal;
  a.q = q.memory->data();
  a.k = k.memory->data();
  a.v = v.memory->data();
  a.out = out.memory->data();
  for (int axis = 0; axis < 3; ++axis) {
    a.q_strides[axis] = q.strides[axis];
    a.k_strides[axis] = k.strides[axis];
    a.v_strides[axis] = v.strides[axis];
    a.out_strides[axis] = out.strides[axis];
  }
  a.mask_kind = c.mask;
  a.mask = c.mask == Mask::none ? nullptr : mask.memory->data();
  std::copy(std::begin(mask.strides), std::end(mask.strides), a.mask_strides);
  a.sinks = c.with_sinks ? sinks_memory.data() : nullptr;
  cpu::run(a);

  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t h = 0; h < c.heads; ++h) {
      for (int64_t t = 0; t < c.length; ++t) {
        auto wanted = attend(c, q, k, v, mask, sinks, a.scale, b, h, t);
        for (int64_t d = 0; d < c.dims; ++d) {
          double got = get(c.type, out.memory->data(), out.place(b, h, t) + d);
          double tolerance = precision_of(c.type) * std::abs(wanted[d]) + 1e-5;
          if (!(std::abs(got - wanted[d]) <= tolerance)) {
            expect_near(
                got, wanted[d], tolerance,
                c.name() + " at " + std::to_string(b) + ", " + std::to_string(h) + ", " + std::to_string(t) + ", " +
                    std::to_string(d));
            return;
          }
        }
      }
    }
  }
  expect(true, c.name());
}

} // namespace

void check_attention(Sweep sweep) {
  struct Lengths {
    int64_t length;
    int64_t total;
  };
  Random random(3);
  for (Float type : {Float::f32, Float::f16, Float::bf16}) {
    for (int64_t dims : {16, 48, 64, 80, 128, 256}) {
      if (sweep == Sweep::few && dims != 80) {
        continue;
      }
      for (int64_t group : {1, 2, 4, 7}) {
        for (auto [length, total] : {Lengths{1, 1}, {1, 63}, {1, 777}, {2, 2}, {5, 67}, {37, 133}}) {
          for (Mask mask : {Mask::none, Mask::boolean, Mask::f32, Mask::f16, Mask::bf16}) {
            // The rest as chance has it: all of it together would be some thousand cases more.
            auto chance = random.bits();
            // As in MLX, causality takes the place of a mask; for one query it says nothing.
            bool causal = chance & 1 && (mask == Mask::none || length == 1);
            bool with_sinks = chance & 2;
            // With one batch and one head of keys, threads share these.
            int64_t batch = chance & 16 || length * total > 1000 ? 1 : 2;
            int64_t kv_heads = chance & 32 ? 1 : 2;
            check_case(
                {type, batch, kv_heads * group, group, length, total, dims, causal, with_sinks, mask,
                 (chance & 4) != 0, static_cast<Layout>(chance / 64 % 3)},
                random);
          }
        }
      }
    }
  }
}

} // namespace mlxlm::check
