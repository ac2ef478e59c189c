// Process groups for collectives.
#include "abi.h"
#include "cuda/meeting.h"
#include "cuda/peers.h"
#include "mesh_group.h"
#include "ours.h"

namespace mlxlm {
namespace {

std::vector<mx::distributed::Group>& groups() {
  static auto* made = new std::vector<mx::distributed::Group>();
  return *made;
}

int32_t add_group(mx::distributed::Group group) {
  groups().push_back(std::move(group));
  return static_cast<int32_t>(groups().size()) - 1;
}

} // namespace

std::optional<mx::distributed::Group> group_of(int32_t id) {
  if (id < 0) {
    return std::nullopt;
  }
  if (id >= static_cast<int32_t>(groups().size())) {
    throw std::invalid_argument("unknown group " + std::to_string(id));
  }
  return groups()[id];
}

namespace ours {

array all_sum(const array& x, const std::optional<mx::distributed::Group>& group, mx::StreamOrDevice s) {
  auto sum = group ? cuda::peer_sum(x, *group, s) : std::nullopt;
  return sum ? *sum : mx::distributed::all_sum(x, group, s);
}

array all_gather(const array& x, const std::optional<mx::distributed::Group>& group, mx::StreamOrDevice s) {
  auto all = group ? cuda::peer_gather(x, *group, s) : std::nullopt;
  return all ? *all : mx::distributed::all_gather(x, group, s);
}

} // namespace ours
} // namespace mlxlm

using namespace mlxlm;

extern "C" {

int32_t mlxlm_distributed_available(const char* backend) {
  return guarded([&] { return mx::distributed::is_available(std::string(backend)) ? 1 : 0; });
}

// The group of all processes, or of this one alone where nothing was launched and `strict` is false. Returns its id.
int32_t mlxlm_distributed_init(bool strict, const char* backend) {
  return guarded([&] { return add_group(mx::distributed::init(strict, backend)); });
}

// The group of the processes at these addresses ("host:port", by rank, each closed by a NUL), over TCP. Returns its id.
int32_t mlxlm_distributed_connect(int32_t rank, const char* addresses, int32_t length, const char* key, double seconds) {
  return guarded([&] { return add_group(mesh_group({rank, fields(addresses, length), key, seconds})); });
}

int32_t mlxlm_group_rank(int32_t group) {
  return guarded([&] { return group_of(group).value().rank(); });
}

int32_t mlxlm_group_size(int32_t group) {
  return guarded([&] { return group_of(group).value().size(); });
}

int32_t mlxlm_group_split(int32_t group, int32_t color, int32_t key) {
  return guarded([&] { return add_group(group_of(group).value().split(color, key)); });
}

// Memory of this process's GPU for messages of so many ranks. Text: how others open it, in hexadecimal digits.
int32_t mlxlm_peers_offer(int32_t ranks) {
  return guarded([&] {
    std::string text;
    for (unsigned char byte : cuda::offer_peer_memory(ranks)) {
      text += "0123456789abcdef"[byte >> 4];
      text += "0123456789abcdef"[byte & 15];
    }
    text += '\0';
    return post_text(std::move(text));
  });
}

// Opens what each rank offered, by rank, each closed by a NUL.
int32_t mlxlm_peers_join(int32_t group, const char* offers, int32_t length) {
  return guarded([&] {
    auto texts = fields(offers, length);
    auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    for (auto& text : texts) {
      std::string bytes;
      for (size_t i = 0; i + 1 < text.size(); i += 2) {
        bytes += static_cast<char>(digit(text[i]) << 4 | digit(text[i + 1]));
      }
      text = std::move(bytes);
    }
    auto joined = group_of(group).value();
    if (static_cast<int>(texts.size()) != joined.size()) {
      throw std::invalid_argument("each rank must offer memory");
    }
    cuda::join_peers(joined, texts);
    return 0;
  });
}

// What is built between these two and not evaluated by then never is, so nobody may come to wait for its messages.
int32_t mlxlm_messages_set_aside() {
  return guarded([] {
    cuda::set_meetings_aside();
    return 0;
  });
}
int32_t mlxlm_messages_restore() {
  return guarded([] {
    cuda::restore_meetings();
    cuda::forget_sums();
    return 0;
  });
}

// Whether the group's sums and gathers go through that memory from now on. A rank that waits for longer than `seconds` goes
// on without an error; 0 waits on.
int32_t mlxlm_peers_use(int32_t group, bool on, double seconds) {
  return guarded([&] {
    cuda::use_peers(group_of(group).value(), on, seconds);
    return 0;
  });
}

} // extern "C"
