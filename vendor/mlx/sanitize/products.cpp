#include "cpu/product.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <vector>

#include "checks.h"
#include "memory.h"
#include "numbers.h"

namespace mlxlm::check {
namespace {

using cpu::Format;
using cpu::Job;
using cpu::Product;

struct Stored {
  Format format;
  const char* name;
  int bits;
  std::vector<int> groups; // none: plain numbers
};

const Stored formats[] = {
    {Format::f32, "f32", 32, {}},
    {Format::f16, "f16", 16, {}},
    {Format::bf16, "bf16", 16, {}},
    {Format::affine2, "affine2", 2, {32, 64, 128}},
    {Format::affine3, "affine3", 3, {32, 64, 128}},
    {Format::affine4, "affine4", 4, {32, 64, 128}},
    {Format::affine5, "affine5", 5, {32, 64, 128}},
    {Format::affine6, "affine6", 6, {32, 64, 128}},
    {Format::affine8, "affine8", 8, {32, 64, 128}},
    {Format::mxfp4, "mxfp4", 4, {32}},
    {Format::mxfp8, "mxfp8", 8, {32}},
    {Format::nvfp4, "nvfp4", 4, {16}},
};

constexpr int64_t row_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 40};
constexpr int64_t most_rows = 40;

struct Case {
  Float type;
  const Stored& stored;
  int group; // 0: plain numbers
  bool transposed;
  int64_t n;
  int64_t k;
  int64_t gap; // bytes between rows of a plain matrix
  int64_t x_step;

  bool affine() const {
    return group != 0 && stored.format >= Format::affine2 && stored.format <= Format::affine8;
  }
  int64_t lines() const {
    return transposed ? n : k;
  }
  int64_t line() const {
    return transposed ? k : n;
  }
  int64_t line_bytes() const {
    return line() * stored.bits / 8;
  }
  int64_t groups() const {
    return group ? line() / group : 0;
  }
  int64_t scale_bytes() const {
    return affine() ? size_of(type) : 1;
  }
  std::string name(int64_t rows) const {
    return std::string(stored.name) + " groups of " + std::to_string(group) + (transposed ? " (n, k)" : " (k, n)") +
        " for " + name_of(type) + ", n " + std::to_string(n) + ", k " + std::to_string(k) + ", rows " +
        std::to_string(rows) + (gap ? ", gap" : "") + (x_step > 1 ? ", steps" : "");
  }
};

// A stored matrix, the same as doubles (n, k), and what bounds each number's share of a sum's rounding.
struct Matrix {
  explicit Matrix(const Case& c)
      : numbers(c.lines() ? (c.lines() - 1) * (c.line_bytes() + c.gap) + c.line_bytes() : 0),
        scales(c.lines() * c.groups() * c.scale_bytes()),
        biases(c.affine() ? scales.size() : 0),
        values(c.n * c.k),
        sizes(c.n * c.k) {}

  Exact numbers;
  Exact scales;
  Exact biases;
  std::vector<double> values;
  std::vector<double> sizes;
};

Float plain_type(Format format) {
  return format == Format::f32 ? Float::f32 : format == Format::f16 ? Float::f16 : Float::bf16;
}

uint32_t code_at(const uint8_t* line, int64_t i, int bits) {
  uint32_t code = 0;
  for (int b = 0; b < bits; ++b) {
    int64_t at = i * bits + b;
    code |= static_cast<uint32_t>(line[at / 8] >> at % 8 & 1) << b;
  }
  return code;
}

// The scale and bias of one group, written and returned.
std::pair<double, double> make_group(const Case& c, const Matrix& matrix, int64_t at, Random& random) {
  if (c.affine()) {
    double scale = static_cast<double>(random.below(15) + 1) / 256;
    double bias = random.number();
    put(c.type, matrix.scales.data(), at, scale);
    put(c.type, matrix.biases.data(), at, bias);
    return {scale, bias};
  }
  auto code = static_cast<uint8_t>(c.stored.format == Format::nvfp4 ? random.below(0x40) : 120 + random.below(6));
  matrix.scales.data<uint8_t>()[at] = code;
  return {c.stored.format == Format::nvfp4 ? of_e4m3(code) : std::ldexp(1, code - 127), 0};
}

void fill(const Case& c, Matrix& matrix, Random& random) {
  for (int64_t row = 0; row < c.lines(); ++row) {
    auto line = matrix.numbers.data<uint8_t>() + row * (c.line_bytes() + c.gap);
    for (int64_t i = 0; c.group && i < c.line_bytes(); ++i) {
      line[i] = static_cast<uint8_t>(random.bits());
      if (c.stored.format == Format::mxfp8 && (line[i] & 0x7f) == 0x7f) {
        line[i] = 1;
      }
    }
    double scale = 0;
    double bias = 0;
    for (int64_t i = 0; i < c.line(); ++i) {
      double value;
      double size;
      if (!c.group) {
        value = random.number();
        size = std::abs(value);
        put(plain_type(c.stored.format), line, i, value);
      } else {
        if (i % c.group == 0) {
          std::tie(scale, bias) = make_group(c, matrix, row * c.groups() + i / c.group, random);
        }
        uint32_t code = code_at(line, i, c.stored.bits);
        double plain = c.affine() ? code
            : c.stored.bits == 8  ? of_e4m3(static_cast<uint8_t>(code))
                                  : of_e2m1(static_cast<int>(code));
        value = plain * scale + bias;
        size = std::abs(plain * scale) + std::abs(bias);
      }
      int64_t at = c.transposed ? row * c.k + i : i * c.k + row;
      matrix.values[at] = value;
      matrix.sizes[at] = size;
    }
  }
}

// `jobs` share the rows: 1, or 2 of which the first has a third of them.
void multiply(
    const Case& c, const Matrix& matrix, const std::vector<double>& x, const std::vector<double>& wanted,
    const std::vector<double>& sizes, int64_t rows, int jobs, Random& random) {
  int64_t x_row = c.k ? (c.k - 1) * c.x_step + 1 : 0;
  Exact x_memory(rows * x_row * size_of(c.type));
  Exact out(rows * c.n * size_of(c.type));
  // Row m lies at place x_rows[m], and its result goes to out_rows[m].
  std::vector<int64_t> x_rows(rows);
  std::vector<int64_t> out_rows(rows);
  std::iota(x_rows.begin(), x_rows.end(), 0);
  std::iota(out_rows.begin(), out_rows.end(), 0);
  for (int64_t m = rows - 1; m > 0; --m) {
    std::swap(x_rows[m], x_rows[random.below(m + 1)]);
    std::swap(out_rows[m], out_rows[random.below(m + 1)]);
  }
  for (int64_t m = 0; m < rows; ++m) {
    x_rows[m] *= x_row;
    out_rows[m] *= c.n;
    for (int64_t i = 0; i < c.k; ++i) {
      put(c.type, x_memory.data(), x_rows[m] + i * c.x_step, x[m * c.k + i]);
    }
  }
  Product product = {c.type, c.stored.format, c.group, c.transposed, c.n, c.k, c.line_bytes() + c.gap, c.x_step};
  Job all = {x_memory.data(), out.data(), matrix.numbers.data(), c.group ? matrix.scales.data() : nullptr,
             c.affine() ? matrix.biases.data() : nullptr, x_rows.data(), out_rows.data(), rows};
  std::vector<Job> list = {all};
  if (jobs == 2) {
    list[0].rows = rows / 3;
    list.push_back(all);
    list[1].x_rows += rows / 3;
    list[1].out_rows += rows / 3;
    list[1].rows -= rows / 3;
  }
  cpu::run(product, list);

  auto name = c.name(rows);
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < c.n; ++n) {
      double right = wanted[m * c.n + n];
      double tolerance = precision_of(c.type) * std::abs(right) + 1e-5 * sizes[m * c.n + n] + 1e-7;
      double got = get(c.type, out.data(), out_rows[m] + n);
      if (!(std::abs(got - right) <= tolerance)) {
        expect_near(got, right, tolerance, name + " at " + std::to_string(m) + ", " + std::to_string(n));
        return;
      }
    }
  }
  expect(true, name);
}

void check_case(const Case& c, std::vector<int64_t> counts, Random& random) {
  Matrix matrix(c);
  fill(c, matrix, random);
  int64_t rows = *std::max_element(counts.begin(), counts.end());
  std::vector<double> x(rows * c.k);
  for (double& value : x) {
    value = random.number();
  }
  std::vector<double> wanted(rows * c.n);
  std::vector<double> sizes(rows * c.n);
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < c.n; ++n) {
      double sum = 0;
      double size = 0;
      for (int64_t k = 0; k < c.k; ++k) {
        sum += x[m * c.k + k] * matrix.values[n * c.k + k];
        size += std::abs(x[m * c.k + k]) * matrix.sizes[n * c.k + k];
      }
      wanted[m * c.n + n] = sum;
      sizes[m * c.n + n] = size;
    }
  }
  for (int64_t count : counts) {
    multiply(c, matrix, x, wanted, sizes, count, 1, random);
  }
  if (rows == most_rows) {
    multiply(c, matrix, x, wanted, sizes, 21, 2, random);
  }
}

struct Shape {
  int64_t n;
  int64_t k;
};

// One matrix on each path: as dots and in tiles, alone and with a second job, packed by one thread and by several.
void check_few(const Stored& stored, Float type, Random& random) {
  int group = stored.groups.empty() ? 0 : stored.groups.back();
  int64_t unit = std::max(group, 1);
  check_case({type, stored, group, true, 67, 4224 / unit * unit, 0, 1}, {1, 6, most_rows}, random);
  check_case({type, stored, group, false, 270 / unit * unit + unit, 77, 0, 1}, {1, most_rows}, random);
}

void check_stored(const Stored& stored, Float type, Random& random) {
  std::vector<int64_t> counts(std::begin(row_counts), std::end(row_counts));
  if (stored.groups.empty()) {
    // Shorter and longer than a panel, rows of w shorter and longer than what is read abreast.
    for (auto [n, k] : {Shape{1, 1}, {37, 77}, {3, 4133}, {301, 65}, {77, 530}, {5, 0}}) {
      for (bool transposed : {true, false}) {
        check_case({type, stored, 0, transposed, n, k, 0, 1}, counts, random);
      }
    }
    for (bool transposed : {true, false}) {
      check_case({type, stored, 0, transposed, 37, 77, 12, 3}, counts, random);
      check_case({type, stored, 0, transposed, 67, 33, 0, 1}, {300, 257}, random);
    }
    return;
  }
  for (int group : stored.groups) {
    for (auto [n, k] : {Shape{1, 1}, {37, 3}, {3, 4224 / group + 1}, {270, 2}, {19, 17}}) {
      check_case({type, stored, group, true, n, k * group, 0, 1}, counts, random);
    }
    for (auto [n, k] : {Shape{1, 1}, {3, 77}, {5, 530}, {2, 1}}) {
      check_case({type, stored, group, false, n * group, k, 0, 1}, counts, random);
    }
    check_case({type, stored, group, true, 37, 2 * group, 0, 3}, counts, random);
    check_case({type, stored, group, true, 67, group, 0, 1}, {300, 257}, random);
  }
}

} // namespace

void check_products(Sweep sweep) {
  Random random(2);
  for (auto& stored : formats) {
    for (Float type : {Float::f32, Float::f16, Float::bf16}) {
      if (!stored.groups.empty() || plain_type(stored.format) == type) {
        sweep == Sweep::all ? check_stored(stored, type, random) : check_few(stored, type, random);
      }
    }
  }
}

} // namespace mlxlm::check
