// Products with matrices in ggml's blocks, of every type, against the numbers that the blocks unpack to: those are compared
// with the gguf package's elsewhere (src/mlx/blocks.test.ts).
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "checks.h"
#include "cpu/block_kernels.h"
#include "cpu/product.h"
#include "memory.h"
#include "numbers.h"

namespace mlxlm::check {
namespace {

using cpu::BlockType;
using cpu::Job;
using cpu::Product;

constexpr int last_type = 64;
constexpr int64_t most_rows = 40;

const cpu::BlockKernels& kernels_of_isa() {
  using namespace cpu;
  return MLXLM_OF_ISA(block_kernels);
}

struct Shape {
  int64_t n;
  int64_t blocks;
};

// Numbers of a block of random bytes, drawn again until they are tame.
void draw(int type, const cpu::BlockTables& tables, cpu::BlockSize size, uint8_t* block, float* numbers, Random& random) {
  for (;;) {
    for (int i = 0; i < size.bytes; ++i) {
      block[i] = static_cast<uint8_t>(random.bits());
    }
    cpu::plain::block_kernels.unpack(static_cast<BlockType>(type), tables, block, 1, numbers);
    bool tame = true;
    for (int i = 0; i < size.numbers; ++i) {
      tame = tame && std::abs(numbers[i]) < 1000;
    }
    if (tame) {
      return;
    }
  }
}

void check_shape(int type, cpu::BlockSize size, Float number, Shape shape, Random& random) {
  auto block_type = static_cast<BlockType>(type);
  auto tables = cpu::block_tables(block_type);
  int64_t k = shape.blocks * size.numbers;
  int64_t row_bytes = shape.blocks * size.bytes;
  Exact w(shape.n * row_bytes);
  std::vector<float> values(shape.n * k);
  for (int64_t i = 0; i < shape.n * shape.blocks; ++i) {
    draw(type, tables, size, w.data<uint8_t>() + i * size.bytes, values.data() + i * size.numbers, random);
  }
  auto& kernels = kernels_of_isa();
  Exact unpacked(values.size() * sizeof(float), 64);
  kernels.unpack(block_type, tables, w.data<uint8_t>(), shape.n * shape.blocks, unpacked.data<float>());
  bool same = true;
  for (size_t i = 0; i < values.size(); ++i) {
    same = same && unpacked.data<float>()[i] == values[i];
  }
  auto name = "blocks of type " + std::to_string(type) + " for " + name_of(number) + ", n " + std::to_string(shape.n) +
      ", k " + std::to_string(k);
  expect(same, name + ", unpacked");

  for (int64_t rows : {int64_t{1}, int64_t{3}, int64_t{8}, int64_t{9}, most_rows}) {
    Exact x(rows * k * size_of(number));
    Exact out(rows * shape.n * size_of(number));
    std::vector<double> numbers(rows * k);
    for (int64_t i = 0; i < rows * k; ++i) {
      numbers[i] = random.number();
      put(number, x.data(), i, numbers[i]);
    }
    std::vector<int64_t> x_rows(rows);
    std::vector<int64_t> out_rows(rows);
    for (int64_t m = 0; m < rows; ++m) {
      x_rows[m] = m * k;
      out_rows[m] = m * shape.n;
    }
    Product product = {};
    product.type = number;
    product.n = shape.n;
    product.k = k;
    product.row_bytes = row_bytes;
    product.x_step = 1;
    cpu::set_blocks(product, block_type);
    cpu::run(product, {{x.data(), out.data(), w.data(), nullptr, nullptr, x_rows.data(), out_rows.data(), rows}});
    for (int64_t m = 0; m < rows; ++m) {
      for (int64_t n = 0; n < shape.n; ++n) {
        double sum = 0;
        double sizes = 0;
        for (int64_t i = 0; i < k; ++i) {
          double term = numbers[m * k + i] * static_cast<double>(values[n * k + i]);
          sum += term;
          sizes += std::abs(term);
        }
        double tolerance = precision_of(number) * std::abs(sum) + 1e-5 * sizes + 1e-7;
        double got = get(number, out.data(), m * shape.n + n);
        // Float16 has no room for the largest.
        bool fits = std::abs(sum) < 60000 || number != Float::f16;
        if (fits && !(std::abs(got - sum) <= tolerance)) {
          expect_near(got, sum, tolerance, name + ", rows " + std::to_string(rows));
          return;
        }
      }
    }
    expect(true, name);
  }
}

// A row with a number that is none, or infinite, has no product; one number that dwarfs the others leaves them alone.
void check_extremes(int type, cpu::BlockSize size, Float number, Random& random) {
  auto block_type = static_cast<BlockType>(type);
  auto tables = cpu::block_tables(block_type);
  int64_t k = 512 > size.numbers ? 512 : size.numbers;
  int64_t blocks = k / size.numbers;
  Exact w(blocks * size.bytes);
  std::vector<float> values(k);
  for (int64_t i = 0; i < blocks; ++i) {
    draw(type, tables, size, w.data<uint8_t>() + i * size.bytes, values.data() + i * size.numbers, random);
  }
  Product product = {};
  product.type = number;
  product.n = 1;
  product.k = k;
  product.row_bytes = blocks * size.bytes;
  product.x_step = 1;
  cpu::set_blocks(product, block_type);
  int64_t zero = 0;
  for (double extreme : {static_cast<double>(NAN), static_cast<double>(INFINITY), 0x1p14, 0x1p-14, 0.0}) {
    Exact x(k * size_of(number));
    Exact out(size_of(number));
    double sum = 0;
    double sizes = 0;
    for (int64_t i = 0; i < k; ++i) {
      double value = i == 37 ? extreme : extreme == 0 ? 0 : random.number();
      if (std::isnan(value)) {
        // All ones below the sign are no number in any type.
        std::memset(x.data<char>() + i * size_of(number), 0x7f, size_of(number));
        std::memset(x.data<char>() + i * size_of(number), 0xff, size_of(number) - 1);
      } else {
        put(number, x.data(), i, value);
      }
      sum += value * values[i];
      sizes += std::abs(value * values[i]);
    }
    cpu::run(product, {{x.data(), out.data(), w.data(), nullptr, nullptr, &zero, &zero, 1}});
    auto name = "blocks of type " + std::to_string(type) + " for " + name_of(number) + ", a row with " +
        std::to_string(extreme);
    double got = get(number, out.data(), 0);
    if (std::isfinite(extreme)) {
      bool fits = std::abs(sum) < 60000 || number != Float::f16;
      expect_near(fits ? got : sum, sum, precision_of(number) * std::abs(sum) + 1e-5 * sizes + 1e-7, name);
    } else {
      expect(!std::isfinite(got), name);
    }
  }
}

// Where each of some groups of 32 has a number a thousand times the others, at the weight that is the least. Three such
// leave the others alone. Many are rounded to 16 bits with their groups, by half of 1/32512 of the largest.
void check_outliers(int type, cpu::BlockSize size, Float number, bool many, Random& random) {
  constexpr int64_t k = 4096;
  constexpr int64_t n = 5;
  constexpr int64_t together = 32;
  auto block_type = static_cast<BlockType>(type);
  auto tables = cpu::block_tables(block_type);
  int64_t blocks = k / size.numbers;
  Exact w(n * blocks * size.bytes);
  std::vector<float> values(n * k);
  for (int64_t i = 0; i < n * blocks; ++i) {
    draw(type, tables, size, w.data<uint8_t>() + i * size.bytes, values.data() + i * size.numbers, random);
  }
  Exact x(k * size_of(number));
  Exact out(n * size_of(number));
  std::vector<double> numbers(k);
  for (int64_t first = 0; first < k; first += together) {
    int64_t least = first;
    for (int64_t i = first; i < first + together; ++i) {
      numbers[i] = random.number();
      least = std::abs(values[i]) < std::abs(values[least]) ? i : least;
    }
    if (many || first % 1536 == together) {
      numbers[least] = random.below(2) > 0 ? 2048 : -2048;
    }
  }
  for (int64_t i = 0; i < k; ++i) {
    put(number, x.data(), i, numbers[i]);
  }
  Product product = {};
  product.type = number;
  product.n = n;
  product.k = k;
  product.row_bytes = blocks * size.bytes;
  product.x_step = 1;
  cpu::set_blocks(product, block_type);
  int64_t zero = 0;
  cpu::run(product, {{x.data(), out.data(), w.data(), nullptr, nullptr, &zero, &zero, 1}});
  for (int64_t row = 0; row < n; ++row) {
    double sum = 0;
    double sizes = 0;
    double rounded = 0;
    for (int64_t i = 0; i < k; ++i) {
      double term = numbers[i] * values[row * k + i];
      sum += term;
      sizes += std::abs(term);
      rounded += 2048.0 / 65024 * std::abs(values[row * k + i]);
    }
    double tolerance = precision_of(number) * std::abs(sum) + 1e-5 * sizes + (many ? rounded : 0);
    bool fits = std::abs(sum) < 60000 || number != Float::f16;
    double got = get(number, out.data(), row);
    expect_near(fits ? got : sum, sum, tolerance,
                "blocks of type " + std::to_string(type) + " for " + name_of(number) + (many ? ", many" : ", three") +
                    " outliers");
  }
}

} // namespace

void check_blocks(Sweep sweep) {
  Random random(5);
  for (int type = 0; type < last_type; ++type) {
    auto size = cpu::block_size(type);
    if (size.numbers == 0) {
      continue;
    }
    int64_t unit = 256 / size.numbers > 0 ? 256 / size.numbers : 1;
    check_shape(type, size, Float::f32, {37, 3 * unit}, random);
    check_shape(type, size, Float::f16, {37, 3 * unit}, random);
    for (Float number : {Float::f32, Float::f16, Float::bf16}) {
      check_extremes(type, size, number, random);
      check_outliers(type, size, number, false, random);
      check_outliers(type, size, number, true, random);
    }
    if (sweep == Sweep::all) {
      check_shape(type, size, Float::f16, {1, 1}, random);
      check_shape(type, size, Float::bf16, {300, unit}, random);
      check_shape(type, size, Float::f32, {3, 9 * unit + 1}, random);
    }
  }
}

} // namespace mlxlm::check
