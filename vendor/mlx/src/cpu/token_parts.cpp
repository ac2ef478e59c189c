#include "cpu/token_parts.h"

#include <cstring>

#include "cpu/attention.h"

namespace mlxlm::cpu {

int64_t width_of(const MatrixLayout& layout, const array& w) {
  if (layout.block_type != 0) {
    auto size = block_size(layout.block_type);
    return size.numbers != 0 && w.shape(1) % size.bytes == 0 ? w.shape(1) / size.bytes * size.numbers : 0;
  }
  return layout.packing ? static_cast<int64_t>(w.shape(1)) * 32 / layout.packing->bits : w.shape(1);
}

array Inputs::as_it_lies() {
  return array::unsafe_weak_copy(inputs_[next_++]);
}

array Inputs::ordered() {
  return array::unsafe_weak_copy(in_order(inputs_[next_++], encoder_));
}

array Inputs::row(int64_t count, mx::Dtype dtype) {
  array row({static_cast<int>(count)}, dtype, nullptr, {});
  allocate(row);
  encoder_.add_temporary(row);
  return array::unsafe_weak_copy(row);
}

HeldMatrix::HeldMatrix(const MatrixLayout& layout, mx::Dtype dtype, Inputs& inputs) : product(), w(inputs.ordered()) {
  auto& packing = layout.packing;
  if (packing) {
    scales = inputs.ordered();
    if (packing->is_affine()) {
      biases = inputs.ordered();
    }
  }
  if (layout.biased) {
    bias = inputs.ordered();
  }
  auto type = float_of(dtype);
  product.type = type;
  product.format = packing ? *format_of(*packing)
      : type == Float::f32 ? Format::f32
      : type == Float::f16 ? Format::f16
                           : Format::bf16;
  product.group = packing ? packing->group : 0;
  product.transposed = true;
  product.n = w.shape(0);
  product.k = width_of(layout, w);
  product.row_bytes = w.shape(1) * static_cast<int64_t>(w.itemsize());
  product.x_step = 1;
  if (layout.block_type != 0) {
    set_blocks(product, static_cast<BlockType>(layout.block_type));
  }
}

HeldMatrices::HeldMatrices(const std::vector<MatrixLayout>& layouts, mx::Dtype dtype, Inputs& inputs) {
  parts_.reserve(layouts.size());
  for (auto& layout : layouts) {
    parts_.emplace_back(layout, dtype, inputs);
  }
}

int64_t HeldMatrices::rows() const {
  int64_t rows = 0;
  for (auto& part : parts_) {
    rows += part.product.n;
  }
  return rows;
}

void HeldMatrices::multiply(const void* x, void* out) const {
  auto data = [](const std::optional<array>& a) { return a ? a->data<void>() : nullptr; };
  int64_t size = parts_[0].product.type == Float::f32 ? 4 : 2;
  int64_t first = 0;
  std::vector<Work> works;
  works.reserve(parts_.size());
  auto to = static_cast<char*>(out);
  for (auto& part : parts_) {
    works.push_back({&part.product, {x, to, part.w.data<void>(), data(part.scales), data(part.biases), &first, &first, 1}});
    to += part.product.n * size;
  }
  run(works);
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (auto& bias = parts_[i].bias) {
      auto& [product, job] = works[i];
      row_kernels().add(product->type, job.out, data(bias), job.out, product->n);
    }
  }
}

namespace {

std::vector<MatrixLayout> layouts(const std::vector<Matrix>& matrices) {
  std::vector<MatrixLayout> layouts;
  for (auto& matrix : matrices) {
    layouts.push_back(matrix.layout);
  }
  return layouts;
}

} // namespace

FeedLayout::FeedLayout(const FeedForward& block)
    : joint(layouts(block.joint)), last(block.last.layout), kind(block.gelu ? Gate::gelu : Gate::silu) {}

HeldFeed::HeldFeed(const FeedLayout& layout, mx::Dtype dtype, Inputs& inputs)
    : joint_(layout.joint, dtype, inputs),
      last_({layout.last}, dtype, inputs),
      dtype_(dtype),
      kind_(layout.kind),
      entering_(inputs.row(joint_.rows(), dtype)),
      opened_(inputs.row(last_.width(), dtype)) {}

void HeldFeed::operator()(const void* x, void* out) {
  joint_.multiply(x, entering_.data<void>());
  int64_t count = last_.width();
  auto at = [](array& a, int64_t i) { return a.data<char>() + i * static_cast<int64_t>(a.itemsize()); };
  auto& kernels = row_kernels();
  parallel_for((count + piece - 1) / piece, [&](int64_t part) {
    int64_t from = part * piece;
    kernels.gate(
        kind_, float_of(dtype_), at(entering_, from), at(entering_, count + from), at(opened_, from),
        std::min(piece, count - from));
  });
  last_.multiply(opened_.data<void>(), out);
}

AttendLayout::AttendLayout(const TokenAttention& attention)
    : joint(layouts(attention.joint)),
      last(attention.last.layout),
      heads(attention.heads),
      has_freqs(attention.freqs.has_value()) {}

HeldAttention::HeldAttention(const AttendLayout& layout, mx::Dtype dtype, Inputs& inputs)
    : joint_(layout.joint, dtype, inputs),
      last_({layout.last}, dtype, inputs),
      heads_(layout.heads),
      keys_(inputs.as_it_lies()),
      values_(inputs.as_it_lies()),
      entering_(inputs.row(joint_.rows(), dtype)),
      queries_(inputs.row(last_.width(), dtype)),
      attended_(inputs.row(last_.width(), dtype)) {
  if (keys_.strides(3) != 1 || values_.strides(3) != 1) {
    throw std::invalid_argument("the numbers of a head's keys and values do not lie side by side");
  }
  while (heads_.normed && weights_.size() < 2) {
    weights_.push_back(inputs.ordered());
  }
  if (layout.has_freqs) {
    freqs_ = inputs.as_it_lies();
  }
}

void HeldAttention::operator()(const void* x, void* out) {
  joint_.multiply(x, entering_.data<void>());
  place();
  attend();
  last_.multiply(attended_.data<void>(), out);
}

char* HeldAttention::new_row(array& rows, int head) const {
  return rows.data<char>() +
      (head * rows.strides(1) + heads_.used * rows.strides(2)) * static_cast<int64_t>(rows.itemsize());
}

void HeldAttention::place() {
  auto inverse = inverse_frequencies(heads_.rotated, heads_.angles, freqs_ ? &*freqs_ : nullptr);
  auto table = rotation_table(std::move(inverse), heads_.angles.scale, heads_.angles.offset, 1);
  auto type = float_of(entering_.dtype());
  Rotation rotation = {type, heads_.dims, heads_.rotated, table->cosines.data(), table->sines.data()};
  auto& kernels = row_kernels();
  for (int row = 0; row < heads_.heads + heads_.kv_heads; ++row) {
    bool of_query = row < heads_.heads;
    Norm norm = {type, heads_.dims, heads_.normed ? weights_[of_query ? 0 : 1].data<void>() : nullptr, heads_.eps};
    auto to = of_query ? row_of(queries_, row, heads_.dims) : new_row(keys_, row - heads_.heads);
    kernels.rotate(rotation, heads_.normed ? &norm : nullptr, row_of(entering_, row, heads_.dims), to);
  }
  for (int head = 0; head < heads_.kv_heads; ++head) {
    auto from = row_of(entering_, heads_.heads + heads_.kv_heads + head, heads_.dims);
    std::memcpy(new_row(values_, head), from, heads_.dims * entering_.itemsize());
  }
}

void HeldAttention::attend() {
  Attention attention = {};
  attention.type = float_of(queries_.dtype());
  attention.batch = 1;
  attention.heads = heads_.heads;
  attention.group = heads_.heads / heads_.kv_heads;
  attention.length = 1;
  attention.total = heads_.used + 1;
  attention.dims = heads_.dims;
  attention.scale = heads_.scale;
  attention.q = queries_.data<void>();
  attention.k = keys_.data<void>();
  attention.v = values_.data<void>();
  attention.out = attended_.data<void>();
  attention.q_strides[1] = attention.out_strides[1] = heads_.dims;
  for (int axis = 0; axis < 3; ++axis) {
    attention.k_strides[axis] = keys_.strides(axis);
    attention.v_strides[axis] = values_.strides(axis);
  }
  run(attention);
}

} // namespace mlxlm::cpu
