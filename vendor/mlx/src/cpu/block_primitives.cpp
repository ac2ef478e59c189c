#include "cpu/block_primitives.h"

#include "cpu/block_kernels.h"
#include "cpu/layer_primitive.h"
#include "cpu/meetings.h"

namespace mlxlm::cpu {
namespace {

// @throws std::invalid_argument
BlockSize checked_size(int type, const array& w, int least_axes) {
  auto size = block_size(type);
  if (size.numbers == 0) {
    throw std::invalid_argument("no kernel knows blocks of type " + std::to_string(type));
  }
  if (w.dtype() != mx::uint8 || static_cast<int>(w.ndim()) < least_axes || w.shape(-1) % size.bytes != 0) {
    throw std::invalid_argument("a matrix of blocks must be uint8 in rows of whole blocks");
  }
  return size;
}

int numbers_in(const BlockSize& size, const array& w) {
  return w.shape(-1) / size.bytes * size.numbers;
}

void check_inputs(const array& x, int numbers) {
  if (!is_known(x.dtype()) || x.ndim() == 0 || x.shape(-1) != numbers) {
    throw std::invalid_argument("a matrix of blocks with rows of " + std::to_string(numbers) +
                                " numbers cannot be multiplied with what has other rows, or no floating point");
  }
}

class UnpackBlocks : public LayerPrimitive {
 public:
  UnpackBlocks(mx::Stream stream, int type) : LayerPrimitive(stream), type_(type) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    allocate(outputs[0]);
    if (outputs[0].size() == 0) {
      return;
    }
    encoder.dispatch([out = array::unsafe_weak_copy(outputs[0]),
                      w = array::unsafe_weak_copy(in_order(inputs[0], encoder)), type = type_]() mutable {
      auto size = block_size(type);
      auto block = static_cast<BlockType>(type);
      auto tables = block_tables(block);
      auto& kernels = MLXLM_OF_ISA(block_kernels);
      auto from = w.data<uint8_t>();
      auto to = out.data<char>();
      bool is_float = out.dtype() == mx::float32;
      auto kind = float_of(out.dtype());
      int64_t blocks = static_cast<int64_t>(w.size()) / size.bytes;
      int64_t together = piece / size.numbers;
      parallel_for((blocks + together - 1) / together, [&](int64_t i) {
        int64_t first = i * together;
        int64_t count = std::min(together, blocks - first);
        auto target = to + first * size.numbers * static_cast<int64_t>(is_float ? 4 : 2);
        auto numbers =
            is_float ? reinterpret_cast<float*>(target) : static_cast<float*>(scratch(0, piece * sizeof(float)));
        kernels.unpack(block, tables, from + first * size.bytes, count, numbers);
        if (!is_float) {
          kernels.narrow(kind, numbers, count * size.numbers, target);
        }
      });
    });
  }

  const char* name() const override {
    return "CpuUnpackBlocks";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    return type_ == static_cast<const UnpackBlocks&>(other).type_;
  }

 private:
  int type_;
};

// Inputs: x, w, and where gathered indices into x's matrices and w's.
class BlockProduct : public mx::UnaryPrimitive {
 public:
  BlockProduct(mx::Stream stream, int type, bool gathered)
      : UnaryPrimitive(stream), type_(type), gathered_(gathered) {}

  void eval_cpu(const std::vector<array>& inputs, array& out) override {
    out.set_data(mx::allocator::malloc(out.nbytes()));
    if (out.size() == 0) {
      return;
    }
    auto& encoder = mx::cpu::get_command_encoder(stream());
    auto& rows = inputs[1];
    std::vector<array> held = {array::unsafe_weak_copy(out)};
    for (auto& input : inputs) {
      held.push_back(array::unsafe_weak_copy(input));
    }
    // Bytes of a row must follow each other.
    if (rows.shape(-1) > 1 && rows.strides(-1) != 1) {
      held[2] = array::unsafe_weak_copy(in_order(rows, encoder));
    }
    Product product = {};
    product.type = float_of(out.dtype());
    product.n = out.shape(-1);
    product.k = inputs[0].shape(-1);
    product.row_bytes = held[2].strides(-2);
    product.x_step = inputs[0].strides(-1);
    set_blocks(product, static_cast<BlockType>(type_));
    encoder.dispatch([held = std::move(held), product, gathered = gathered_]() mutable {
      auto& out = held[0];
      auto& x = held[1];
      auto& w = held[2];
      auto meetings = gathered ? meetings_of(x, w, out, held[3], held[4]) : meetings_of(x, w, out);
      run(product, meetings, [&](int64_t offset) {
        Job job = {};
        job.x = x.data<void>();
        job.out = out.data<void>();
        job.w = w.data<char>() + offset;
        return job;
      });
    });
  }

  void eval_gpu(const std::vector<array>&, array&) override {
    throw std::runtime_error("a CPU kernel was asked to run on a GPU");
  }

  std::vector<array> vjp(
      const std::vector<array>& primals, const std::vector<array>& cotangents, const std::vector<int>& argnums,
      const std::vector<array>&) override {
    auto product = [&](const std::vector<array>& values) { return unpacked_product(primals, values[0]); };
    std::vector<array> result;
    for (int argnum : argnums) {
      if (argnum != 0) {
        throw std::invalid_argument("a matrix of blocks has no gradient");
      }
      result.push_back(mx::vjp(product, {primals[0]}, cotangents).second[0]);
    }
    return result;
  }

  std::vector<array> jvp(
      const std::vector<array>& primals, const std::vector<array>& tangents, const std::vector<int>&) override {
    return unpacked_product(primals, tangents[0]);
  }

  std::pair<std::vector<array>, std::vector<int>> vmap(
      const std::vector<array>& inputs, const std::vector<int>& axes) override {
    auto product = [this](const std::vector<array>& values) { return unpacked_product(values, values[0]); };
    return {mx::vmap(product, axes, {0})(inputs), {0}};
  }

  const char* name() const override {
    return "CpuBlockProduct";
  }
  bool is_equivalent(const mx::Primitive& other) const override {
    auto& product = static_cast<const BlockProduct&>(other);
    return type_ == product.type_ && gathered_ == product.gathered_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<array>& inputs) override {
    mx::Shape shape = gathered_ ? inputs[3].shape() : inputs[0].shape();
    if (gathered_) {
      shape.push_back(inputs[0].shape(-2));
      shape.push_back(inputs[1].shape(-2));
    } else {
      shape.back() = inputs[1].shape(-2);
    }
    return {std::move(shape)};
  }

 private:
  // The same with another x and w unpacked, in MLX's operations.
  std::vector<array> unpacked_product(const std::vector<array>& inputs, const array& x) {
    auto w = mx::swapaxes(unpack_blocks(inputs[1], type_, x.dtype(), stream()), -1, -2, stream());
    return {gathered_ ? mx::gather_mm(x, w, inputs[2], inputs[3], false, stream()) : mx::matmul(x, w, stream())};
  }

  int type_;
  bool gathered_;
};

bool on_cpu(mx::StreamOrDevice s) {
  return mx::to_stream(s).device == mx::Device::cpu;
}

} // namespace

array block_matmul(const array& x, const array& w, int type, mx::StreamOrDevice s) {
  auto size = checked_size(type, w, 2);
  check_inputs(x, numbers_in(size, w));
  if (!on_cpu(s)) {
    return mx::matmul(x, mx::swapaxes(unpack_blocks(w, type, x.dtype(), s), -1, -2, s), s);
  }
  std::vector<array> inputs = {x, w};
  if (w.ndim() > 2) {
    if (x.ndim() < 2) {
      throw std::invalid_argument("several matrices of blocks meet one row");
    }
    auto batches = mx::broadcast_shapes(
        mx::Shape(x.shape().begin(), x.shape().end() - 2), mx::Shape(w.shape().begin(), w.shape().end() - 2));
    for (auto& input : inputs) {
      auto shape = batches;
      shape.insert(shape.end(), input.shape().end() - 2, input.shape().end());
      input = mx::broadcast_to(input, shape, s);
    }
  }
  auto shape = inputs[0].shape();
  shape.back() = w.shape(-2);
  return array(
      std::move(shape), x.dtype(), std::make_shared<BlockProduct>(mx::to_stream(s), type, false), std::move(inputs));
}

array gather_block_mm(const array& x, const array& w, const array& indices, int type, mx::StreamOrDevice s) {
  auto size = checked_size(type, w, 3);
  check_inputs(x, numbers_in(size, w));
  if (x.ndim() < 2 || w.ndim() != 3) {
    throw std::invalid_argument("matrices of blocks are gathered from one list, for matrices");
  }
  if (!on_cpu(s)) {
    auto dense = mx::swapaxes(unpack_blocks(w, type, x.dtype(), s), -1, -2, s);
    return mx::gather_mm(x, dense, std::nullopt, indices, false, s);
  }
  mx::Shape batches(x.shape().begin(), x.shape().end() - 2);
  int count = 1;
  for (int size : batches) {
    count *= size;
  }
  auto places = mx::reshape(mx::arange(0, count, mx::uint32, s), batches, s);
  auto both = mx::broadcast_arrays({places, mx::astype(indices, mx::uint32, s)}, s);
  auto shape = both[0].shape();
  shape.push_back(x.shape(-2));
  shape.push_back(w.shape(-2));
  return array(
      std::move(shape), x.dtype(), std::make_shared<BlockProduct>(mx::to_stream(s), type, true),
      {x, w, both[0], both[1]});
}

array unpack_blocks(const array& w, int type, mx::Dtype dtype, mx::StreamOrDevice s) {
  auto size = checked_size(type, w, 1);
  if (!is_known(dtype)) {
    throw std::invalid_argument("blocks unpack to floating point only");
  }
  auto shape = w.shape();
  shape.back() = numbers_in(size, w);
  auto stream = on_cpu(s) ? mx::to_stream(s) : mx::default_stream(mx::Device::cpu);
  return array(std::move(shape), dtype, std::make_shared<UnpackBlocks>(stream, type), {w});
}

array block_vectors(int type, mx::StreamOrDevice) {
  auto grid = block_grid(type);
  if (grid.count == 0) {
    throw std::invalid_argument("blocks of type " + std::to_string(type) + " choose from no grid");
  }
  return array(grid.numbers, {grid.count, grid.width}, mx::int8);
}

} // namespace mlxlm::cpu
