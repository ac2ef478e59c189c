#include "cpu/rows.h"

#include <cmath>
#include <vector>

#include "checks.h"
#include "cpu/thread_pool.h"
#include "memory.h"
#include "numbers.h"

namespace mlxlm::check {
namespace {

using cpu::Gate;

constexpr Float types[] = {Float::f32, Float::f16, Float::bf16};
constexpr int64_t lengths[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 127, 1001};

// Numbers in memory of their own, and as doubles.
struct Row {
  Row(Float type, int64_t count, Random& random) : memory(count * size_of(type)), values(count) {
    for (int64_t i = 0; i < count; ++i) {
      set(type, i, random.number());
    }
  }
  void set(Float type, int64_t i, double value) {
    values[i] = rounded(type, value);
    put(type, memory.data(), i, values[i]);
  }

  Exact memory;
  std::vector<double> values;
};

std::string label(const char* what, Float type, int64_t count) {
  return std::string(what) + " of " + std::to_string(count) + " " + name_of(type);
}

void expect_row(
    Float type, const Exact& memory, const std::vector<double>& wanted, double size, const std::string& what) {
  for (size_t i = 0; i < wanted.size(); ++i) {
    double tolerance = precision_of(type) * (std::abs(wanted[i]) + size);
    expect_near(get(type, memory.data(), i), wanted[i], tolerance, what + ", " + std::to_string(i));
  }
}

std::vector<double> norm_of(const std::vector<double>& x, const double* weight, double eps) {
  double squares = 0;
  for (double value : x) {
    squares += value * value;
  }
  double factor = 1 / std::sqrt(squares / x.size() + eps);
  std::vector<double> out;
  for (size_t i = 0; i < x.size(); ++i) {
    out.push_back(x[i] * factor * (weight ? weight[i] : 1));
  }
  return out;
}

void check_norm(Float type, int64_t dims, Random& random) {
  Row x(type, dims, random);
  Row delta(type, dims, random);
  Row weight(type, dims, random);
  std::vector<double> joint = x.values;
  for (int64_t i = 0; i < dims; ++i) {
    joint[i] += delta.values[i];
  }
  for (bool with_weight : {false, true}) {
    for (bool with_delta : {false, true}) {
      cpu::Norm norm = {type, dims, with_weight ? weight.memory.data() : nullptr, 1e-5f};
      Exact out(x.memory.size());
      Exact sum(x.memory.size());
      auto& k = cpu::row_kernels();
      k.norm(
          norm, x.memory.data(), with_delta ? delta.memory.data() : nullptr, with_delta ? sum.data() : nullptr,
          out.data());
      auto wanted = norm_of(with_delta ? joint : x.values, with_weight ? weight.values.data() : nullptr, 1e-5);
      expect_row(type, out, wanted, 0.01, label("norm", type, dims));
      if (with_delta) {
        expect_row(type, sum, joint, 0, label("sum", type, dims));
      }
    }
  }
}

void check_rotation(Float type, int64_t half, int64_t behind, Random& random) {
  int64_t dims = 2 * half + behind;
  Row x(type, dims, random);
  Row weight(type, dims, random);
  Row cosines(Float::f32, half, random);
  Row sines(Float::f32, half, random);
  cpu::Rotation rotation = {type, dims, 2 * half, cosines.memory.data<float>(), sines.memory.data<float>()};
  cpu::Norm norm = {type, dims, weight.memory.data(), 1e-5f};
  for (bool with_norm : {false, true}) {
    auto wanted = with_norm ? norm_of(x.values, weight.values.data(), 1e-5) : x.values;
    for (int64_t i = 0; i < half; ++i) {
      double a = wanted[i];
      double b = wanted[half + i];
      wanted[i] = a * cosines.values[i] - b * sines.values[i];
      wanted[half + i] = b * cosines.values[i] + a * sines.values[i];
    }
    Exact out(x.memory.size());
    cpu::row_kernels().rotate(rotation, with_norm ? &norm : nullptr, x.memory.data(), out.data());
    expect_row(type, out, wanted, 20, label("rotation", type, dims));
  }
}

void check_gate(Float type, int64_t count, Random& random) {
  Row g(type, count, random);
  Row x(type, count, random);
  for (Gate kind : {Gate::silu, Gate::gelu}) {
    std::vector<double> wanted;
    for (int64_t i = 0; i < count; ++i) {
      double v = g.values[i];
      double inner = kind == Gate::silu ? v : 2 * std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
      wanted.push_back(v / (1 + std::exp(-inner)) * x.values[i]);
    }
    Exact out(x.memory.size());
    cpu::row_kernels().gate(kind, type, g.memory.data(), x.memory.data(), out.data(), count);
    expect_row(type, out, wanted, 1, label("gate", type, count));
  }
}

void check_softmax(Float type, int64_t count, Random& random) {
  Row x(type, count, random);
  // All below zero: what stands in for numbers behind the end must not count as the largest.
  for (int64_t i = 0; i < count; ++i) {
    x.set(type, i, x.values[i] - 6);
  }
  if (count > 2) {
    x.set(type, count / 2, -INFINITY);
  }
  double sum = 0;
  for (double value : x.values) {
    sum += std::exp(value);
  }
  std::vector<double> wanted;
  for (double value : x.values) {
    wanted.push_back(std::exp(value) / sum);
  }
  Exact out(x.memory.size());
  cpu::row_kernels().softmax(type, x.memory.data(), out.data(), count);
  expect_row(type, out, wanted, 0.01, label("softmax", type, count));

  Exact one(size_of(type));
  cpu::row_kernels().log_sum_exp(type, x.memory.data(), one.data(), count);
  expect_row(type, one, {std::log(sum)}, 1, label("log of the sum", type, count));
  for (int64_t i = 0; i < count; ++i) {
    x.set(type, i, -INFINITY);
  }
  cpu::row_kernels().log_sum_exp(type, x.memory.data(), one.data(), count);
  expect_row(type, one, {-INFINITY}, 1, label("log of nothing", type, count));
}

// Every number of a half type, infinities and NaNs too, plus another one, to the last bit.
void check_sums(Float type) {
  constexpr int64_t count = 1 << 16;
  Exact x(count * 2);
  Exact delta(count * 2);
  Exact sum(count * 2);
  Exact out(count * 2);
  for (int64_t i = 0; i < count; ++i) {
    x.data<uint16_t>()[i] = static_cast<uint16_t>(i);
    // An odd number of steps: every other number's turn comes once.
    delta.data<uint16_t>()[i] = static_cast<uint16_t>(i * 40503 + 1);
  }
  cpu::Norm norm = {type, count, nullptr, 1e-5f};
  cpu::row_kernels().norm(norm, x.data(), delta.data(), sum.data(), out.data());
  auto what = label("sums", type, count);
  for (int64_t i = 0; i < count; ++i) {
    auto exact = static_cast<float>(get(type, x.data(), i)) + static_cast<float>(get(type, delta.data(), i));
    expect_near(get(type, sum.data(), i), rounded(type, exact), 0, what);
  }
}

// Rows of one matrix, shared out to the threads.
void check_rows_abreast(Float type, Random& random) {
  constexpr int64_t rows = 64;
  constexpr int64_t dims = 100;
  Row x(type, rows * dims, random);
  Row weight(type, dims, random);
  Exact out(x.memory.size());
  cpu::Norm norm = {type, dims, weight.memory.data(), 1e-5f};
  int64_t row_size = dims * size_of(type);
  cpu::parallel_for(rows, [&](int64_t row) {
    cpu::row_kernels().norm(
        norm, x.memory.data<char>() + row * row_size, nullptr, nullptr, out.data<char>() + row * row_size);
  });
  std::vector<double> wanted;
  for (int64_t row = 0; row < rows; ++row) {
    auto first = x.values.begin() + row * dims;
    auto normed = norm_of({first, first + dims}, weight.values.data(), 1e-5);
    wanted.insert(wanted.end(), normed.begin(), normed.end());
  }
  expect_row(type, out, wanted, 0.01, label("norms abreast", type, rows * dims));
}

} // namespace

void check_rows(Sweep sweep) {
  Random random(1);
  for (Float type : types) {
    check_rows_abreast(type, random);
    if (type != Float::f32) {
      check_sums(type);
    }
    for (int64_t length : lengths) {
      if (sweep == Sweep::few && length > 100) {
        continue;
      }
      check_norm(type, length, random);
      check_gate(type, length, random);
      check_softmax(type, length, random);
      for (int64_t behind : {0, 1, 2, 10}) {
        check_rotation(type, length, behind, random);
      }
    }
  }
}

} // namespace mlxlm::check
