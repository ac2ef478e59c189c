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

const array& Inputs::ordered() {
  auto& input = as_it_lies();
  if (input.flags().row_contiguous) {
    return input;
  }
  copies_.push_back(in_order(input, encoder_));
  return copies_.back();
}

size_t Inputs::row(int64_t count, mx::Dtype dtype) {
  size_t offset = row_bytes_;
  row_bytes_ += (count * mx::size_of(dtype) + 63) / 64 * 64;
  return offset;
}

HeldMatrix::HeldMatrix(const MatrixLayout& layout, mx::Dtype dtype, Inputs& inputs) : product() {
  auto& numbers = inputs.ordered();
  w = numbers.data<void>();
  auto& packing = layout.packing;
  if (packing) {
    scales = inputs.ordered().data<void>();
    if (packing->is_affine()) {
      biases = inputs.ordered().data<void>();
    }
  }
  if (layout.biased) {
    bias = inputs.ordered().data<void>();
  }
  auto type = float_of(dtype);
  product.type = type;
  product.format = packing ? *format_of(*packing)
      : type == Float::f32 ? Format::f32
      : type == Float::f16 ? Format::f16
                           : Format::bf16;
  product.group = packing ? packing->group : 0;
  product.transposed = true;
  product.n = numbers.shape(0);
  product.k = width_of(layout, numbers);
  product.row_bytes = numbers.shape(1) * static_cast<int64_t>(numbers.itemsize());
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
  int64_t size = parts_[0].product.type == Float::f32 ? 4 : 2;
  int64_t first = 0;
  std::vector<Work> works;
  works.reserve(parts_.size());
  auto to = static_cast<char*>(out);
  for (auto& part : parts_) {
    works.push_back({&part.product, {x, to, part.w, part.scales, part.biases, &first, &first, 1}});
    to += part.product.n * size;
  }
  run(works);
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (auto bias = parts_[i].bias) {
      auto& [product, job] = works[i];
      row_kernels().add(product->type, job.out, bias, job.out, product->n);
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
      type_(float_of(dtype)),
      kind_(layout.kind),
      entering_(inputs.row(joint_.rows(), dtype)),
      opened_(inputs.row(last_.width(), dtype)) {}

void HeldFeed::operator()(const void* x, void* out, char* room) const {
  auto entering = room + entering_;
  auto opened = room + opened_;
  joint_.multiply(x, entering);
  int64_t count = last_.width();
  int64_t size = type_ == Float::f32 ? 4 : 2;
  parallel_for((count + piece - 1) / piece, [&](int64_t part) {
    int64_t from = part * piece;
    row_kernels().gate(
        kind_, type_, entering + from * size, entering + (count + from) * size, opened + from * size,
        std::min(piece, count - from));
  });
  last_.multiply(opened, out);
}

AttendLayout::AttendLayout(const TokenAttention& attention)
    : joint(layouts(attention.joint)),
      last(attention.last.layout),
      heads(attention.heads),
      has_freqs(attention.freqs.has_value()) {}

HeldAttention::Rows::Rows(const array& rows) : data(const_cast<char*>(rows.data<char>())) {
  if (rows.strides(3) != 1) {
    throw std::invalid_argument("the numbers of a head's keys and values do not lie side by side");
  }
  for (int axis = 0; axis < 3; ++axis) {
    strides[axis] = rows.strides(axis);
  }
}

HeldAttention::HeldAttention(const AttendLayout& layout, mx::Dtype dtype, Inputs& inputs)
    : joint_(layout.joint, dtype, inputs),
      last_({layout.last}, dtype, inputs),
      heads_(layout.heads),
      type_(float_of(dtype)),
      size_(mx::size_of(dtype)),
      keys_(inputs.as_it_lies()),
      values_(inputs.as_it_lies()),
      entering_(inputs.row(joint_.rows(), dtype)),
      queries_(inputs.row(last_.width(), dtype)),
      attended_(inputs.row(last_.width(), dtype)) {
  if (heads_.normed) {
    for (auto& weight : weights_) {
      weight = inputs.ordered().data<void>();
    }
  }
  if (layout.has_freqs) {
    freqs_ = array::unsafe_weak_copy(inputs.as_it_lies());
  }
}

void HeldAttention::operator()(const void* x, void* out, char* room) const {
  joint_.multiply(x, room + entering_);
  place(room);
  attend(room);
  last_.multiply(room + attended_, out);
}

void HeldAttention::place(char* room) const {
  auto inverse = inverse_frequencies(heads_.rotated, heads_.angles, freqs_ ? &*freqs_ : nullptr);
  auto table = rotation_table(std::move(inverse), heads_.angles.scale, heads_.angles.offset, 1);
  Rotation rotation = {type_, heads_.dims, heads_.rotated, table->cosines.data(), table->sines.data()};
  auto& kernels = row_kernels();
  int64_t bytes = heads_.dims * size_;
  const char* from = room + entering_;
  for (int head = 0; head < heads_.heads + heads_.kv_heads; ++head, from += bytes) {
    bool of_query = head < heads_.heads;
    Norm norm = {type_, heads_.dims, weights_[of_query ? 0 : 1], heads_.eps};
    auto to = of_query ? room + queries_ + head * bytes : keys_.at(head - heads_.heads, heads_.row, size_);
    kernels.rotate(rotation, heads_.normed ? &norm : nullptr, from, to);
  }
  for (int head = 0; head < heads_.kv_heads; ++head, from += bytes) {
    std::memcpy(values_.at(head, heads_.row, size_), from, bytes);
  }
}

void HeldAttention::attend(char* room) const {
  Attention attention = {};
  attention.type = type_;
  attention.batch = 1;
  attention.heads = heads_.heads;
  attention.group = heads_.heads / heads_.kv_heads;
  attention.length = 1;
  attention.total = std::max(heads_.used, heads_.row + 1);
  attention.dims = heads_.dims;
  attention.scale = heads_.scale;
  attention.q = room + queries_;
  attention.k = keys_.data;
  attention.v = values_.data;
  attention.out = room + attended_;
  attention.q_strides[1] = attention.out_strides[1] = heads_.dims;
  std::copy_n(keys_.strides, 3, attention.k_strides);
  std::copy_n(values_.strides, 3, attention.v_strides);
  run(attention);
}

} // namespace mlxlm::cpu
