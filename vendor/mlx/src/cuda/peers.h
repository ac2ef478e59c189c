// Sums and gathers of ranks on GPUs of one host through each other's memory: NCCL takes several times as long for what
// one token needs, and the host longer still, for MLX captures each of its calls.
#pragma once

#include "abi.h"

namespace mlxlm::cuda {

// Memory of this process's GPU for so many ranks, as others may open it: 64 bytes. Throws where the driver refuses.
std::string offer_peer_memory(int ranks);

// Opens what the others offered, by rank. Throws where a GPU cannot reach another's memory.
void join_peers(const mx::distributed::Group& group, const std::vector<std::string>& offers);

// Whether the group's messages go that way from now on: after join_peers. A rank that waits for longer than `patience`, in
// seconds, goes on with what is there, for tests; 0 waits on.
void use_peers(const mx::distributed::Group& group, bool on, double patience);

// MLX's all_sum and all_gather that way; nothing where another way is needed. All ranks must come to the same.
std::optional<array> peer_sum(const array& x, const mx::distributed::Group& group, mx::StreamOrDevice s);
std::optional<array> peer_gather(const array& x, const mx::distributed::Group& group, mx::StreamOrDevice s);

// x + delta and its RMS norm, where delta is the newest peer_sum: one kernel takes the place of the sum's. Nothing where it is not.
// Delta is given away: who used it elsewhere too would have the ranks sum it again, in no order with what was asked for since.
std::optional<std::vector<array>> peer_sum_norm(
    const array& x, const array& delta, const array& weight, float eps, mx::StreamOrDevice s);

// x + the sum over ranks of what parts (P, …) in float32 make, and its RMS norm. Nothing where no kernel takes these.
std::optional<std::vector<array>> peer_sum_parts_norm(
    const array& x, const array& parts, const mx::distributed::Group& group, const array& weight, float eps,
    mx::StreamOrDevice s);

// This rank's part of a sum, where that is the newest peer_sum: for who asks for the sum again. The sum is given away as above.
std::optional<array> take_peer_sum(const array& sum);

// No sum that was asked for is taken by these any more.
void forget_sums();

// What a kernel needs that sums a row over ranks on its way: mlxlm::RowSum of cuda/peer_sources.h.
struct RowPeers {
  int rank;
  int ranks;
  array table;
};
// How the memory of so many ranks is called in the text of a kernel with cuda/peer_sources.h's header.
std::string peers_type(int ranks);
// Nothing where the group has no such memory, or a row of so many 16-bit numbers does not fit.
std::optional<RowPeers> row_peers(const mx::distributed::Group& group, int dims);

} // namespace mlxlm::cuda
