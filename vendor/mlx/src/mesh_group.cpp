// Collectives between each and each: one exchange for what is short, two for what is long. Sums are made in the order of
// ranks, so every rank has the same bits; half precision is summed in float32 and rounded once.
#include "mesh_group.h"

#include <algorithm>
#include <cstring>

#include "mlx/backend/cpu/encoder.h"
#include "mlx/distributed/distributed_impl.h"
#include "mlx/utils.h"

namespace mlxlm {
namespace {

using mx::Stream;

// Up to so many bytes each rank sends all to all others; above, each sums a part.
constexpr size_t short_message = 128 << 10;

template <class T>
struct Wide {
  using type = T;
};
template <>
struct Wide<mx::float16_t> {
  using type = float;
};
template <>
struct Wide<mx::bfloat16_t> {
  using type = float;
};

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_same_v<T, bool>) {
      return a || b;
    } else {
      return a + b;
    }
  }
};
// NaN wins, as in MLX's own maximum and minimum.
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a != a || !(b > a || b != b) ? a : b;
  }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return a != a || !(b < a || b != b) ? a : b;
  }
};

// out[i] = parts[0][i] ∘ parts[1][i] ∘ …
template <class T, class Op>
void combine(const std::vector<const T*>& parts, T* out, size_t count, Op op) {
  using W = typename Wide<T>::type;
  constexpr size_t block = 512;
  W sums[block];
  for (size_t start = 0; start < count; start += block) {
    size_t length = std::min(block, count - start);
    for (size_t i = 0; i < length; ++i) {
      sums[i] = static_cast<W>(parts[0][start + i]);
    }
    for (size_t part = 1; part < parts.size(); ++part) {
      for (size_t i = 0; i < length; ++i) {
        sums[i] = op(sums[i], static_cast<W>(parts[part][start + i]));
      }
    }
    for (size_t i = 0; i < length; ++i) {
      out[start + i] = static_cast<T>(sums[i]);
    }
  }
}

class MeshGroup : public mx::distributed::detail::GroupImpl, public std::enable_shared_from_this<MeshGroup> {
 public:
  MeshGroup(std::shared_ptr<Mesh> mesh, std::vector<int> members)
      : mesh_(std::move(mesh)), members_(std::move(members)) {
    rank_ = static_cast<int>(std::find(members_.begin(), members_.end(), mesh_->rank()) - members_.begin());
  }

  Stream communication_stream(mx::StreamOrDevice stream) override {
    return mx::to_stream(stream, mx::Device::cpu);
  }
  int rank() override {
    return rank_;
  }
  int size() override {
    return static_cast<int>(members_.size());
  }

  // Every rank of this group must call it. Waits for the others.
  std::shared_ptr<GroupImpl> split(int color, int key) override {
    mx::synchronize(communication_stream({}));
    struct Wish {
      int32_t color, key;
    };
    std::vector<Wish> wishes(size());
    wishes[rank_] = {color, key < 0 ? rank_ : key};
    gather(&wishes[rank_], wishes.data(), sizeof(Wish));
    std::vector<std::pair<int, int>> chosen;
    for (int other = 0; other < size(); ++other) {
      if (wishes[other].color == color) chosen.emplace_back(wishes[other].key, members_[other]);
    }
    std::sort(chosen.begin(), chosen.end());
    std::vector<int> members;
    for (auto [_, member] : chosen) {
      members.push_back(member);
    }
    return std::make_shared<MeshGroup>(mesh_, std::move(members));
  }

  void all_sum(const array& input, array& output, Stream stream) override {
    all_reduce(input, output, stream, Sum{});
  }
  void all_max(const array& input, array& output, Stream stream) override {
    all_reduce(input, output, stream, Max{});
  }
  void all_min(const array& input, array& output, Stream stream) override {
    all_reduce(input, output, stream, Min{});
  }

  void all_gather(const array& input, array& output, Stream stream) override {
    dispatch(stream, [self = shared_from_this(),
                      in = input.data<char>(),
                      out = output.data<char>(),
                      bytes = input.nbytes()] { self->gather(in, out, bytes); });
  }

  void send(const array& input, int to, Stream stream) override {
    dispatch(stream, [self = shared_from_this(), in = input.data<char>(), bytes = input.nbytes(), to] {
      self->mesh_->exchange({{self->member(to), in, bytes}}, {});
    });
  }

  void recv(array& output, int from, Stream stream) override {
    dispatch(stream, [self = shared_from_this(), out = output.data<char>(), bytes = output.nbytes(), from] {
      self->mesh_->exchange({}, {{self->member(from), out, bytes}});
    });
  }

  void sum_scatter(const array& input, array& output, Stream stream) override {
    with_type(output.dtype(), [&](auto type) {
      using T = decltype(type);
      dispatch(stream, [self = shared_from_this(),
                        in = input.data<T>(),
                        out = output.data<T>(),
                        count = output.size()] {
        self->reduce_part(in, out, [count](int rank) { return std::pair(rank * count, count); }, Sum{});
      });
    });
  }

 private:
  template <class Task>
  static void dispatch(Stream stream, Task task) {
    mx::cpu::get_command_encoder(stream).dispatch(std::move(task));
  }

  template <class Body>
  static void with_type(mx::Dtype dtype, Body body) {
    switch (dtype.val()) {
      case mx::Dtype::Val::bool_:
        return body(bool{});
      case mx::Dtype::Val::uint8:
        return body(uint8_t{});
      case mx::Dtype::Val::uint16:
        return body(uint16_t{});
      case mx::Dtype::Val::uint32:
        return body(uint32_t{});
      case mx::Dtype::Val::uint64:
        return body(uint64_t{});
      case mx::Dtype::Val::int8:
        return body(int8_t{});
      case mx::Dtype::Val::int16:
        return body(int16_t{});
      case mx::Dtype::Val::int32:
        return body(int32_t{});
      case mx::Dtype::Val::int64:
        return body(int64_t{});
      case mx::Dtype::Val::float16:
        return body(mx::float16_t{});
      case mx::Dtype::Val::bfloat16:
        return body(mx::bfloat16_t{});
      case mx::Dtype::Val::float32:
        return body(float{});
      case mx::Dtype::Val::float64:
        return body(double{});
      default:
        throw std::invalid_argument("collectives know no complex numbers");
    }
  }

  int member(int rank) const {
    if (rank < 0 || rank >= static_cast<int>(members_.size())) {
      throw std::invalid_argument(
          "there is no rank " + std::to_string(rank) + " in a group of " + std::to_string(members_.size()));
    }
    return members_[rank];
  }

  // Runs `body` with every other rank of the group, nearest above first, so that no rank is everyone's first.
  template <class Body>
  void for_others(Body body) {
    for (int step = 1; step < size(); ++step) {
      body((rank_ + step) % size());
    }
  }

  void gather(const void* in, void* out, size_t bytes) {
    auto place = [&](int rank) { return static_cast<char*>(out) + rank * bytes; };
    if (place(rank_) != in) std::memcpy(place(rank_), in, bytes);
    std::vector<Mesh::Outgoing> sent;
    std::vector<Mesh::Incoming> received;
    for_others([&](int other) {
      sent.push_back({members_[other], place(rank_), bytes});
      received.push_back({members_[other], place(other), bytes});
    });
    mesh_->exchange(sent, received);
  }

  // Each rank gets the sum of its part, which `part(rank)` gives as start and count.
  template <class T, class Part, class Op>
  void reduce_part(const T* in, T* out, Part part, Op op) {
    auto [start, count] = part(rank_);
    scratch_.resize(size() * count * sizeof(T));
    std::vector<const T*> parts(size());
    std::vector<Mesh::Outgoing> sent;
    std::vector<Mesh::Incoming> received;
    parts[rank_] = in + start;
    for_others([&](int other) {
      auto [theirs, length] = part(other);
      auto place = reinterpret_cast<T*>(scratch_.data()) + other * count;
      sent.push_back({members_[other], in + theirs, length * sizeof(T)});
      received.push_back({members_[other], place, count * sizeof(T)});
      parts[other] = place;
    });
    mesh_->exchange(sent, received);
    combine(parts, out, count, op);
  }

  template <class T, class Op>
  void reduce_all(const T* in, T* out, size_t count, Op op) {
    if (count * sizeof(T) <= short_message) {
      return reduce_part(in, out, [count](int) { return std::pair(size_t(0), count); }, op);
    }
    size_t ranks = size();
    auto part = [count, ranks](int rank) {
      size_t start = count * rank / ranks;
      return std::pair(start, count * (rank + 1) / ranks - start);
    };
    auto [own, length] = part(rank_);
    reduce_part(in, out + own, part, op);
    std::vector<Mesh::Outgoing> sent;
    std::vector<Mesh::Incoming> received;
    for_others([&](int other) {
      auto [start, theirs] = part(other);
      sent.push_back({members_[other], out + own, length * sizeof(T)});
      received.push_back({members_[other], out + start, theirs * sizeof(T)});
    });
    mesh_->exchange(sent, received);
  }

  template <class Op>
  void all_reduce(const array& input, array& output, Stream stream, Op op) {
    with_type(output.dtype(), [&](auto type) {
      using T = decltype(type);
      dispatch(stream, [self = shared_from_this(),
                        in = input.data<T>(),
                        out = output.data<T>(),
                        count = input.size(),
                        op] { self->reduce_all(in, out, count, op); });
    });
  }

  std::shared_ptr<Mesh> mesh_;
  std::vector<int> members_; // ranks of the mesh, in the order of this group's
  int rank_;
  std::vector<char> scratch_; // what others sent; used on the stream's thread only
};

} // namespace

mx::distributed::Group mesh_group(const MeshOptions& options) {
  auto mesh = std::make_shared<Mesh>(options);
  std::vector<int> members(mesh->size());
  for (int rank = 0; rank < mesh->size(); ++rank) {
    members[rank] = rank;
  }
  return mx::distributed::Group(std::make_shared<MeshGroup>(std::move(mesh), std::move(members)));
}

} // namespace mlxlm
