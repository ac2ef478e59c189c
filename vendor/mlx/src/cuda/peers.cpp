#include "cuda/peers.h"

#include <cstring>
#include <utility>

#include "cuda/driver.h"
#include "cuda/kernel.h"
#include "cuda/meeting.h"
#include "cuda/peer_norm_sources.h"
#include "cuda/peer_sources.h"
#include "mlx/distributed/distributed_impl.h"

namespace mlxlm::cuda {
namespace {

constexpr int max_ranks = 8;
// Two for each multiprocessor of an H200: one sends while the other adds up. A smaller GPU takes the last ones later: they begin in order, so
// that those of all ranks find each other.
constexpr int blocks = 256;
constexpr int threads = 512;
constexpr int chunk = 32 << 10;
constexpr int row_lines = 4096;
// Of what a rank sends to all others by lines: from there on chunks are quicker.
constexpr size_t short_bytes = 512 << 10;

// As cuda/peer_sources.h has it.
size_t memory_bytes(int ranks) {
  size_t lines = 2 * static_cast<size_t>(ranks) * blocks * threads * 16;
  size_t chunks = 4 * static_cast<size_t>(ranks) * blocks * chunk;
  size_t arrivals = static_cast<size_t>(ranks) * blocks * 32;
  size_t rounds = 2 * blocks * sizeof(uint32_t);
  size_t rows = 16 + 2 * static_cast<size_t>(ranks) * row_lines * 16;
  return lines + chunks + arrivals + rounds + rows;
}

struct Handle {
  char bytes[64];
};

struct Driver {
  int (*allocate)(Address*, size_t);
  int (*fill)(Address, unsigned char, size_t);
  int (*synchronize)();
  int (*offer)(Handle*, Address);
  int (*open)(Address*, Handle, unsigned);

  Driver() {
    auto find = [](auto& function, const char* name) {
      if (!find_in_driver(function, name)) throw std::runtime_error(std::string("CUDA's driver has no ") + name);
    };
    find(allocate, "cuMemAlloc_v2");
    find(fill, "cuMemsetD8_v2");
    find(synchronize, "cuCtxSynchronize");
    find(offer, "cuIpcGetMemHandle");
    find(open, "cuIpcOpenMemHandle_v2");
  }
};

const Driver& driver() {
  static const auto* made = new Driver();
  return *made;
}

// This process's memory that was offered; 0 before. It lives as long as the process.
Address& own_memory() {
  static Address address = 0;
  return address;
}

class Peers {
 public:
  Peers(int rank, std::vector<Address> memory)
      : rank_(rank),
        ranks_(static_cast<int>(memory.size())),
        memory_(std::move(memory)) {}

  void use(bool on, double patience) {
    table_.reset();
    if (on) table_ = table_of(memory_, patience);
  }

  std::optional<array> sum(const array& x, mx::StreamOrDevice s) {
    auto dtype = x.dtype();
    bool known = is_half(dtype) || dtype == mx::float32 || dtype == mx::int32 || dtype == mx::uint32;
    if (!known || x.nbytes() != 4) return known ? exchange(x, x.shape(), false, s) : std::nullopt;
    // A single number, a token for instance: a line has place for two.
    auto two = exchange(mx::pad(mx::reshape(x, {1}, s), {0, 1}, array(0, dtype), "constant", s), {2}, false, s);
    return two ? std::optional(mx::reshape(mx::slice(*two, {0}, {1}, s), x.shape(), s)) : std::nullopt;
  }

  void forget_sum() {
    newest_.reset();
  }

  std::optional<RowPeers> row(int dims) const {
    bool fits = table_ && dims % 4 == 0 && dims / 4 <= row_lines;
    return fits ? std::optional(RowPeers{rank_, ranks_, *table_}) : std::nullopt;
  }

  std::optional<std::vector<array>> sum_norm(
      const array& x, const array& delta, const array& weight, float eps, mx::StreamOrDevice s) {
    bool fits = table_ && is_newest(delta) && norm_fits(x, weight, s) && x.shape() == delta.shape() && x.dtype() == delta.dtype();
    if (!fits) return std::nullopt;
    return add_and_norm(x, *take(delta), 0, weight, eps, s);
  }

  std::optional<std::vector<array>> sum_parts_norm(
      const array& x, const array& parts, const array& weight, float eps, mx::StreamOrDevice s) {
    bool fits = table_ && norm_fits(x, weight, s) && goes_by_lines(x) && parts.dtype() == mx::float32 &&
        parts.size() == x.size() * parts.shape(0) && !traced(parts);
    if (!fits) return std::nullopt;
    newest_.reset();
    return add_and_norm(x, parts, parts.shape(0), weight, eps, s);
  }

  // The part that the newest sum is of.
  std::optional<array> take(const array& x) {
    if (!is_newest(x)) return std::nullopt;
    auto sum = *std::exchange(newest_, std::nullopt);
    forget_meeting(std::move(sum.earlier));
    return std::move(sum.part);
  }

  std::optional<array> gather(const array& x, mx::StreamOrDevice s) {
    if (x.ndim() == 0) return std::nullopt;
    auto shape = x.shape();
    shape[0] *= ranks_;
    return exchange(x, shape, true, s);
  }

 private:
  bool is_newest(const array& x) const {
    return newest_ && newest_->is(x);
  }

  static bool norm_fits(const array& x, const array& weight, mx::StreamOrDevice s) {
    int dims = x.shape(-1);
    return is_half(x.dtype()) && dims % 8 == 0 && dims * 2 <= chunk && weight.dtype() == x.dtype() &&
        weight.size() == static_cast<size_t>(dims) && !traced(x, weight) && on_gpu(s);
  }

  // Channels that a row takes.
  static int channels_of(const array& x) {
    return (x.shape(-1) / 4 + threads - 1) / threads;
  }

  bool goes_by_lines(const array& x) const {
    int rows = static_cast<int>(x.size() / x.shape(-1));
    return x.nbytes() * (ranks_ - 1) <= short_bytes && rows * channels_of(x) <= blocks;
  }

  // `parts` of this rank's part in float32; 0 where it is whole.
  std::vector<array> add_and_norm(
      const array& x, const array& part, int parts, const array& weight, float eps, mx::StreamOrDevice s) {
    static const std::vector<std::string> inputs = {"x", "part", "weight", "table", "before"};
    static const std::vector<std::string> outputs = {"sum", "normed", "after"};
    static const auto header = std::string(peer_header) + peer_norm_header;
    static Kernel by_lines("mlxlm_peer_norm_short", inputs, outputs, peer_norm_short_source, header);
    static Kernel by_chunks("mlxlm_peer_norm_long", inputs, outputs, peer_norm_long_source, header + two_blocks());
    int dims = x.shape(-1);
    bool is_short = goes_by_lines(x);
    std::vector<std::pair<std::string_view, int>> constants = {{"DIMS", dims}, {"EPS", bits_of(eps)}};
    if (is_short) constants.emplace_back("PARTS", parts);
    auto results = (is_short ? by_lines : by_chunks)(
        {x, part, weight, *table_, after_meetings(mx::to_stream(s))}, {x.shape(), x.shape(), {}},
        {x.dtype(), x.dtype(), mx::uint32}, launch(std::move(constants), is_short ? static_cast<int>(x.size() / dims) : blocks), s);
    remember_meeting(results[2]);
    results.pop_back();
    return results;
  }

  static array table_of(const std::vector<Address>& memory, double patience) {
    std::vector<uint64_t> entries(memory.begin(), memory.end());
    entries.push_back(static_cast<uint64_t>(patience * 1e9));
    array written(entries.data(), {static_cast<int>(entries.size())}, mx::uint64);
    // What is made from host data moves between host and GPU; a result stays on the GPU.
    array table = mx::add(written, array(uint64_t(0), mx::uint64), mx::Device::gpu);
    mx::eval(table);
    return table;
  }

  std::optional<array> exchange(const array& x, const mx::Shape& shape, bool gathers, mx::StreamOrDevice s) {
    size_t bytes = x.nbytes();
    if (!table_ || x.ndim() == 0 || bytes == 0 || bytes % 8 != 0 || traced(x) || !on_gpu(s)) return std::nullopt;
    size_t others = ranks_ - 1;
    // Lines carry as much again, but nobody waits for a whole chunk.
    bool is_short = bytes * others <= short_bytes;
    // Each rank sends all to all others: from some size on, more ranks do better by parts.
    if (!is_short && (bytes % 16 != 0 || (ranks_ > 4 && bytes > (2 << 20)))) return std::nullopt;
    static Kernel by_lines(
        "mlxlm_peer_short", {"x", "table", "before"}, {"joint", "after"}, peer_short_source, peer_header);
    static Kernel by_chunks(
        "mlxlm_peer_long", {"x", "table", "before"}, {"joint", "after"}, peer_long_source, peer_header + two_blocks());
    int taken = is_short ? static_cast<int>((bytes / 8 + threads - 1) / threads) : blocks;
    // Messages go in the order in which they were asked for, the same on all ranks.
    auto earlier = newest_meeting();
    auto results = (is_short ? by_lines : by_chunks)(
        {x, *table_, after_meetings(mx::to_stream(s))}, {shape, {}}, {x.dtype(), mx::uint32},
        launch({{"GATHER", gathers ? 1 : 0}}, taken), s);
    remember_meeting(results[1]);
    newest_.reset();
    if (!gathers) newest_ = Sum{results[0].id(), results[0].primitive_ptr(), x, results[1].id(), std::move(earlier)};
    return results[0];
  }

  // Keeps registers so few that a multiprocessor has two blocks at a time.
  static std::string two_blocks() {
    return launch_bounds(threads, 2);
  }

  Launch launch(std::vector<std::pair<std::string_view, int>> constants, int taken) const {
    constants.insert(
        constants.end(),
        {{"RANKS", ranks_}, {"RANK", rank_}, {"BLOCKS", blocks}, {"THREADS", threads}, {"CHUNK", chunk}});
    return {{taken, 1, 1}, threads, std::move(constants)};
  }

  // A sum that a kernel with more to do may still take the place of.
  struct Sum {
    std::uintptr_t id;
    std::shared_ptr<mx::Primitive> primitive;
    array part; // this rank's
    std::uintptr_t after; // what orders it among kernels that wait, and what was there before
    std::optional<array> earlier;

    // Whether x is that sum, nothing was asked for since, and it is not under way.
    bool is(const array& x) const {
      auto newest = newest_meeting();
      return x.id() == id && x.has_primitive() && x.primitive_ptr() == primitive &&
          x.status() == array::Status::unscheduled && newest && newest->id() == after;
    }
  };

  int rank_;
  int ranks_;
  std::vector<Address> memory_;
  std::optional<array> table_; // nothing while another way is taken
  std::optional<Sum> newest_;
};

using GroupId = const mx::distributed::detail::GroupImpl*;

std::map<GroupId, Peers>& joined() {
  static auto* made = new std::map<GroupId, Peers>();
  return *made;
}

Peers* peers_of(const mx::distributed::Group& group) {
  auto found = joined().find(group.raw_group().get());
  return found == joined().end() ? nullptr : &found->second;
}

} // namespace

std::string offer_peer_memory(int ranks) {
  if (ranks < 2 || ranks > max_ranks) {
    throw std::runtime_error("GPUs of one host are at most " + std::to_string(max_ranks));
  }
  const auto& cuda = driver();
  if (!on_gpu(mx::Device::gpu)) throw std::runtime_error("MLXLM_CUDA_KERNELS is 0");
  check_driver(use_usual_context(), "no context of the GPU");
  auto& address = own_memory();
  if (address == 0) {
    size_t bytes = memory_bytes(ranks);
    check_driver(cuda.allocate(&address, bytes), "no memory for messages");
    check_driver(cuda.fill(address, 0, bytes), "no memory for messages");
    check_driver(cuda.synchronize(), "no memory for messages");
  }
  Handle handle;
  check_driver(cuda.offer(&handle, address), "memory cannot be opened by other processes");
  return std::string(handle.bytes, sizeof(handle.bytes));
}

void join_peers(const mx::distributed::Group& group, const std::vector<std::string>& offers) {
  const auto& cuda = driver();
  check_driver(use_usual_context(), "no context of the GPU");
  static auto* opened = new std::map<std::string, Address>();
  std::vector<Address> memory;
  for (int rank = 0; rank < static_cast<int>(offers.size()); ++rank) {
    if (rank == group.rank()) {
      memory.push_back(own_memory());
      continue;
    }
    const auto& offer = offers[rank];
    Handle handle;
    if (offer.size() != sizeof(handle.bytes)) throw std::invalid_argument("an offer of memory has 64 bytes");
    auto known = opened->find(offer);
    if (known == opened->end()) {
      std::memcpy(handle.bytes, offer.data(), sizeof(handle.bytes));
      Address address = 0;
      constexpr unsigned with_peer_access = 1;
      check_driver(cuda.open(&address, handle, with_peer_access), "another GPU's memory cannot be reached");
      known = opened->emplace(offer, address).first;
    }
    memory.push_back(known->second);
  }
  joined().insert_or_assign(group.raw_group().get(), Peers(group.rank(), std::move(memory)));
}

void use_peers(const mx::distributed::Group& group, bool on, double patience) {
  if (auto* peers = peers_of(group)) peers->use(on, patience);
}

std::optional<array> peer_sum(const array& x, const mx::distributed::Group& group, mx::StreamOrDevice s) {
  auto* peers = peers_of(group);
  return peers ? peers->sum(x, s) : std::nullopt;
}

std::optional<array> peer_gather(const array& x, const mx::distributed::Group& group, mx::StreamOrDevice s) {
  auto* peers = peers_of(group);
  return peers ? peers->gather(x, s) : std::nullopt;
}

std::optional<std::vector<array>> peer_sum_norm(
    const array& x, const array& delta, const array& weight, float eps, mx::StreamOrDevice s) {
  for (auto& [_, peers] : joined()) {
    if (auto parts = peers.sum_norm(x, delta, weight, eps, s)) return parts;
  }
  return std::nullopt;
}

std::optional<std::vector<array>> peer_sum_parts_norm(
    const array& x, const array& parts, const mx::distributed::Group& group, const array& weight, float eps,
    mx::StreamOrDevice s) {
  auto* peers = peers_of(group);
  return peers ? peers->sum_parts_norm(x, parts, weight, eps, s) : std::nullopt;
}

std::optional<array> take_peer_sum(const array& sum) {
  for (auto& [_, peers] : joined()) {
    if (auto part = peers.take(sum)) return part;
  }
  return std::nullopt;
}

void forget_sums() {
  for (auto& [_, peers] : joined()) {
    peers.forget_sum();
  }
}

std::string peers_type(int ranks) {
  std::string text = "mlxlm::Peers<" + std::to_string(ranks);
  for (int size : {blocks, threads, chunk}) {
    text += ", " + std::to_string(size);
  }
  return text + ">";
}

std::optional<RowPeers> row_peers(const mx::distributed::Group& group, int dims) {
  auto* peers = peers_of(group);
  return peers ? peers->row(dims) : std::nullopt;
}

} // namespace mlxlm::cuda
