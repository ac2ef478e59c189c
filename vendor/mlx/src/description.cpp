#include "description.h"

#include <bit>

namespace mlxlm {

namespace {

class Reader {
 public:
  explicit Reader(const Words& words) : next_(words.begin()), end_(words.end()) {}

  // Reads with `part`, which must read all.
  template <class Part>
  static auto whole(const Words& words, Part part) {
    Reader reader(words);
    auto result = part(reader);
    if (reader.next_ != reader.end_) {
      throw std::invalid_argument("a description has more words than what it describes");
    }
    return result;
  }

  int number() {
    if (next_ == end_) {
      throw std::invalid_argument("a description ends too early");
    }
    return *next_++;
  }
  bool flag() {
    return number() != 0;
  }
  float real() {
    return std::bit_cast<float>(number());
  }
  array tensor() {
    return at(number());
  }
  std::optional<array> maybe_tensor() {
    return maybe_at(number());
  }

  // Group (0 where it is plain), bits, mode, whether there is a bias; then its arrays.
  cpu::Matrix matrix() {
    static const char* modes[] = {"affine", "mxfp4", "mxfp8", "nvfp4"};
    constexpr int blocks = std::size(modes);
    int group = number();
    int bits = number();
    int mode = number();
    cpu::MatrixLayout layout = {std::nullopt, mode == blocks ? group : 0, flag()};
    if (mode < 0 || mode > blocks) {
      throw std::invalid_argument("a matrix is described that is packed in mode " + std::to_string(mode));
    }
    if (group > 0 && mode < blocks) {
      layout.packing = cpu::quantization(group, bits, modes[mode], true);
    }
    return {arrays(layout.arrays()), layout};
  }
  std::vector<cpu::Matrix> matrices() {
    std::vector<cpu::Matrix> matrices;
    for (int count = number(); count > 0; --count) {
      matrices.push_back(matrix());
    }
    return matrices;
  }

  cpu::FeedForward feed_forward() {
    bool gelu = flag();
    auto joint = matrices();
    return {std::move(joint), matrix(), gelu};
  }

  cpu::RowNorm norm() {
    auto weight = tensor();
    return {std::move(weight), real()};
  }

  // What of a layer's heads is no matrix.
  struct OfHeads {
    cpu::Heads heads;
    std::optional<array> query_weight;
    std::optional<array> key_weight;
    std::optional<array> freqs;
  };
  OfHeads of_heads(const TokenRows& rows) {
    if (rows.keys.ndim() != 4) {
      throw std::invalid_argument("keys have " + std::to_string(rows.keys.ndim()) + " axes; a token attends to those of 4");
    }
    cpu::Heads heads = {};
    heads.heads = number();
    heads.kv_heads = number();
    heads.dims = rows.keys.shape(3);
    heads.rotated = number();
    heads.used = rows.used;
    heads.row = rows.row;
    auto query_weight = maybe_tensor();
    auto key_weight = maybe_tensor();
    heads.eps = real();
    heads.normed = query_weight.has_value();
    auto base = maybe_float(real());
    heads.angles = {base, real(), rows.offset};
    auto freqs = maybe_tensor();
    heads.scale = real();
    return {heads, std::move(query_weight), std::move(key_weight), std::move(freqs)};
  }
  cpu::TokenAttention attention(TokenRows rows) {
    auto own = of_heads(rows);
    auto group = group_of(number());
    auto joint = matrices();
    auto last = matrix();
    return {
        std::move(joint), std::move(last), std::move(rows.keys), std::move(rows.values), std::move(own.query_weight),
        std::move(own.key_weight), std::move(own.freqs), own.heads, std::move(group)};
  }

 private:
  std::vector<array> arrays(size_t count) {
    std::vector<array> arrays;
    arrays.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      arrays.push_back(tensor());
    }
    return arrays;
  }

  Words::const_iterator next_;
  Words::const_iterator end_;
};

} // namespace

cpu::FeedForward feed_forward_of(const Words& words) {
  return Reader::whole(words, [](Reader& read) { return read.feed_forward(); });
}

cpu::TokenAttention attention_of(const Words& words, TokenRows rows) {
  return Reader::whole(words, [&](Reader& read) { return read.attention(std::move(rows)); });
}

cpu::TokenLayer layer_of(const Words& words, TokenRows rows) {
  return Reader::whole(words, [&](Reader& read) -> cpu::TokenLayer {
    auto first = read.norm();
    auto second = read.norm();
    std::optional<cpu::NormsBehind> behind;
    if (read.flag()) {
      auto attention = read.norm();
      behind = {std::move(attention), read.norm()};
    }
    auto attention = read.attention(std::move(rows));
    return {std::move(first), std::move(attention), std::move(second), read.feed_forward(), std::move(behind)};
  });
}

cuda::AttendedRows attended_rows_of(const Words& words, array keys, array values, cuda::SequenceRows sequences) {
  return Reader::whole(words, [&](Reader& read) -> cuda::AttendedRows {
    auto own = read.of_heads({keys, values, 0, 0, 0});
    return {
        std::move(keys), std::move(values), std::move(own.query_weight), std::move(own.key_weight), std::move(own.freqs),
        own.heads, std::move(sequences)};
  });
}

cuda::Experts experts_of(const Words& words) {
  return Reader::whole(words, [](Reader& read) -> cuda::Experts {
    bool gelu = read.flag();
    auto gate = read.matrix();
    auto up = read.matrix();
    return {std::move(gate), std::move(up), read.matrix(), gelu};
  });
}

} // namespace mlxlm
