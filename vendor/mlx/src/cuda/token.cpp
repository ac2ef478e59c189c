#include "cuda/token.h"

#include <cmath>

#include "cuda/attention_parts.h"
#include "cuda/composite.h"
#include "cuda/heads.h"
#include "cuda/kernel.h"
#include "cuda/meeting.h"
#include "cuda/peer_sources.h"
#include "cuda/peers.h"
#include "cuda/stream.h"
#include "cuda/token_parts.h"
#include "cuda/token_sources.h"

namespace mlxlm::cuda {

namespace {

// What a kernel is told of a matrix: whether one of this form can be streamed, and how.
struct Streamed {
  StreamMatrix matrix;
  StreamCut cut;
};

// Nothing where the kernels do not read a matrix like this, for rows (count) of this dtype.
std::optional<Streamed> streamed(
    const cpu::Matrix& given, int count, mx::Dtype dtype, bool may_be_biased, const StreamingGpu& gpu) {
  auto matrix = stream_matrix(given, 2, count, dtype);
  if (!matrix) {
    return std::nullopt;
  }
  auto& bias = given.arrays.back();
  bool bias_fits = !given.layout.biased ||
      (may_be_biased && bias.size() == static_cast<size_t>(matrix->rows) && bias.dtype() == dtype);
  auto cut = bias_fits ? stream_cut(*matrix, gpu) : std::nullopt;
  return cut ? std::optional(Streamed{*matrix, *cut}) : std::nullopt;
}

bool is_token(const array& x) {
  return x.ndim() == 3 && x.shape(0) == 1 && x.shape(1) == 1 && is_half(x.dtype()) && x.shape(2) % 8 == 0 && !traced(x);
}

// A kernel's numbers: those of `shared_names`, then four of each matrix.
struct Plan {
  std::vector<int> constants;
  int shared_memory;
  int room; // numbers that blocks hand each other
  int parts;
};

constexpr const char* shared_names[] = {
    "DIMS",   "HEADS", "KV_HEADS",   "HEAD_DIMS", "HEADS_A_BLOCK", "ROTATED",  "INNER",
    "GROUPS", "SLOTS", "SLOT_BYTES", "FIRST_EPS", "SECOND_EPS",    "HEAD_EPS", "ROPE_SCALE",
    "LOG2_BASE", "SCORE_SCALE", "RANK", "RANKS", "BEHIND_ATTENTION_EPS", "BEHIND_FEED_EPS"};
constexpr const char* matrix_names[] = {"JOINT", "LAST", "GATES", "DOWN"};
enum MatrixName { joint, last, gates, down };
// The matrix, its scales and biases, its layer's bias.
constexpr const char* array_names[][4] = {
    {"joint", "joint_scales", "joint_biases", "joint_bias"},
    {"last", "last_scales", "last_biases", "last_bias"},
    {"gates", "gates_scales", "gates_biases", "gates_bias"},
    {"down", "down_scales", "down_biases", "down_bias"}};

// The plan of a layer (four matrices) or its attention (two); nothing where it finds no room.
std::optional<Plan> plan_for(
    const std::vector<Streamed>& matrices, const cpu::Heads& heads, int dims, const cpu::Epsilons& eps,
    const std::optional<RowPeers>& peers, const StreamingGpu& gpu) {
  int slot_bytes = 0;
  int groups = 0;
  int widest = 0;
  for (auto& [matrix, cut] : matrices) {
    slot_bytes = std::max(slot_bytes, (cut.slot_bytes + 127) / 128 * 128);
    groups = std::max(groups, (matrix.groups() + 3) / 4 * 4);
    widest = std::max(widest, matrix.columns);
  }
  int team = heads_a_block(heads);
  int attention = static_cast<int>(sizeof(float)) * ((team + 2) * heads.dims + stream_warps * team * (heads.dims + 4));
  int fixed = stream_fixed_bytes(groups) + std::max(2 * widest, attention);
  int slots = stream_slots(slot_bytes, fixed, gpu);
  if (slots == 0) {
    return std::nullopt;
  }
  int inner = matrices.size() == 4 ? matrices[down].matrix.columns : 0;
  auto& angles = heads.angles;
  std::vector<int> constants = {
      dims, heads.heads, heads.kv_heads, heads.dims, team, heads.rotated, inner, groups, slots, slot_bytes,
      bits_of(eps.first), bits_of(eps.second), bits_of(heads.eps), bits_of(angles.scale),
      bits_of(std::log2(angles.base.value_or(1.0f))), bits_of(heads.scale), peers ? peers->rank : 0,
      peers ? peers->ranks : 1, bits_of(eps.behind_attention), bits_of(eps.behind_feed)};
  for (auto& [matrix, cut] : matrices) {
    constants.insert(constants.end(), {matrix.bits, matrix.group, cut.tile, cut.cuts});
  }
  return Plan{
      .constants = std::move(constants),
      .shared_memory = fixed + slots * slot_bytes,
      .room = matrices[joint].matrix.rows + heads.heads * heads.dims + inner + dims,
      .parts = gpu.multiprocessors * team * (heads.dims + 4)};
}

// What decides the text of a kernel beside its numbers.
struct Kind {
  int ranks; // 1 where results are this rank's alone
  bool whole;
  bool adds;
  bool biased;
  bool normed;
  bool by_freqs;
  bool gelu;
  bool behind; // norms of what attention and the feed-forward block give
  unsigned packed; // a bit for each matrix

  int matrices() const {
    return whole ? 4 : 2;
  }
  // For who asked: the stream where it is whole, and what is added to it next.
  int results() const {
    return whole ? 2 : 1;
  }
  bool is_packed(int matrix) const {
    return packed >> matrix & 1;
  }
  unsigned number() const {
    return packed << 8 | behind << 7 | (ranks > 1) << 6 | whole << 5 | adds << 4 | biased << 3 | normed << 2 | by_freqs << 1 | gelu;
  }
  std::string name() const {
    return "mlxlm_token_" + std::to_string(number());
  }

  std::string header() const {
    std::string text;
    auto define = [&](const std::string& name, const std::string& value) {
      text += "#define " + name + " " + value + "\n";
    };
    define("WHOLE", whole ? "1" : "0");
    define("ADDS", adds ? "1" : "0");
    define("JOINT_BIASED", biased ? "1" : "0");
    define("GELU", gelu ? "1" : "0");
    define("BEHIND", behind ? "1" : "0");
    define("SHARED", ranks > 1 ? "1" : "0");
    if (ranks > 1) {
      define("PEERS", peers_type(ranks));
    }
    for (int i = 0; i < matrices(); ++i) {
      std::string matrix = matrix_names[i];
      define(matrix + "_SCALES", is_packed(i) ? array_names[i][1] : "nullptr");
      define(matrix + "_BIASES", is_packed(i) ? array_names[i][2] : "nullptr");
    }
    text += head_defines(normed, by_freqs) + stream_header();
    return text + (ranks > 1 ? peer_header : "") + token_header + attention_header;
  }
};

void add_matrix(NamedInputs& inputs, int which, const cpu::Matrix& matrix) {
  auto& names = array_names[which];
  inputs.add(names[0], matrix.arrays[0]);
  if (matrix.layout.packing) {
    inputs.add(names[1], matrix.arrays[1]);
    inputs.add(names[2], matrix.arrays[2]);
  }
  if (matrix.layout.biased) {
    inputs.add(names[3], matrix.arrays.back());
  }
}

std::vector<array> launch(const Kind& kind, const Plan& plan, NamedInputs inputs, const array& x, mx::StreamOrDevice s) {
  auto key = plan.constants;
  key.insert(key.end(), {static_cast<int>(kind.number()), static_cast<int>(x.dtype().val())});
  std::vector<mx::Shape> shapes(kind.results(), x.shape());
  shapes.push_back({plan.room});
  shapes.push_back({plan.parts});
  std::vector<mx::Dtype> dtypes(shapes.size() - 1, x.dtype());
  dtypes.push_back(mx::float32);
  auto make = [&] {
    MeetingKernel kernel = {
        .name = kind.name(),
        .header = kind.header(),
        .outputs = {"out", "room", "parts"},
        .arguments = {{"T", x.dtype()}},
        .shared_memory = plan.shared_memory,
        .blocks = streaming_gpu(s)->multiprocessors,
        .threads = stream_threads,
        .reads = Reads::in_place};
    if (kind.whole) {
      kernel.outputs.insert(kernel.outputs.begin(), "sum");
    }
    size_t at = 0;
    for (auto* name : shared_names) {
      kernel.arguments.emplace_back(name, plan.constants[at++]);
    }
    for (int i = 0; i < kind.matrices(); ++i) {
      for (auto* what : {"_BITS", "_GROUP", "_TILE", "_CUTS"}) {
        kernel.arguments.emplace_back(std::string(matrix_names[i]) + what, plan.constants[at++]);
      }
    }
    return kernel;
  };
  auto results = launch_meeting(
      token_layer_source, std::move(key), std::move(inputs), std::move(shapes), dtypes, mx::to_stream(s), make);
  results.resize(kind.results(), results[0]);
  return results;
}

// The same as an operation of its own: in a model whose layers are all such kernels, MLX's own work for one takes as long as the kernel.
std::vector<array> launch_in_turn(Kind kind, Plan plan, NamedInputs inputs, const array& x, mx::Stream stream) {
  std::vector<array> awaited;
  for (auto& input : inputs.arrays) {
    if (is_awaited(input)) {
      awaited.push_back(input);
    }
  }
  awaited.push_back(after_meetings(stream));
  std::vector<mx::Shape> shapes(kind.results(), x.shape());
  std::vector<mx::Dtype> dtypes(shapes.size(), x.dtype());
  auto operations = [kind, plan = std::move(plan), inputs = std::move(inputs), x, stream](const std::vector<array>& given) {
    MeetingsWithin within(given.back());
    return launch(kind, plan, inputs, x, stream);
  };
  auto results = composite(std::move(shapes), std::move(dtypes), std::move(awaited), std::move(operations), stream);
  remember_meeting(results[0]);
  return results;
}

bool attention_fits(const cpu::TokenAttention& attention, mx::Dtype dtype) {
  auto& heads = attention.heads;
  auto rows_fit = [&](const array& rows) {
    return rows.ndim() == 4 && rows.shape(0) == 1 && rows.shape(1) == heads.kv_heads && cpu::has_rows(rows, heads) &&
        rows.shape(3) == heads.dims && rows.dtype() == dtype && !traced(rows);
  };
  return heads_fit(heads) && rows_fit(attention.keys) && rows_fit(attention.values) &&
      weights_fit(heads, attention.query_weight, attention.key_weight, attention.freqs, dtype);
}

// The matrices of an attention; nothing where they don't fit together.
std::optional<std::vector<Streamed>> matrices_of(
    const array& x, const cpu::TokenAttention& attention, const StreamingGpu& gpu) {
  auto& heads = attention.heads;
  if (!is_token(x) || attention.joint.size() != 1 || !attention_fits(attention, x.dtype())) {
    return std::nullopt;
  }
  int width = heads.heads * heads.dims;
  if (heads.heads / heads_a_block(heads) > std::min(most_counters, gpu.multiprocessors)) {
    return std::nullopt;
  }
  auto first = streamed(attention.joint[0], x.shape(2), x.dtype(), true, gpu);
  auto second = first ? streamed(attention.last, width, x.dtype(), false, gpu) : std::nullopt;
  bool fit = second && first->matrix.rows == width + 2 * heads.kv_heads * heads.dims && second->matrix.rows == x.shape(2);
  return fit ? std::optional(std::vector<Streamed>{*first, *second}) : std::nullopt;
}

std::optional<std::vector<Streamed>> matrices_of(const array& x, const cpu::TokenLayer& layer, const StreamingGpu& gpu) {
  auto all = matrices_of(x, layer.attention, gpu);
  auto gates = all && layer.feed.joint.size() == 1 ? streamed(layer.feed.joint[0], x.shape(2), x.dtype(), false, gpu) : std::nullopt;
  if (!gates || gates->matrix.rows % 2 != 0) {
    return std::nullopt;
  }
  auto down = streamed(layer.feed.last, gates->matrix.rows / 2, x.dtype(), false, gpu);
  if (!down || down->matrix.rows != x.shape(2)) {
    return std::nullopt;
  }
  all->push_back(*gates);
  all->push_back(*down);
  return all;
}

void add_attention(NamedInputs& inputs, const cpu::TokenAttention& attention, mx::StreamOrDevice s) {
  add_matrix(inputs, joint, attention.joint[0]);
  add_matrix(inputs, last, attention.last);
  inputs.add("keys", attention.keys);
  inputs.add("values", attention.values);
  inputs.add("sizes", sizes_of_step({attention.heads.used, attention.heads.angles.offset, attention.heads.row}, false, s));
  inputs.add("query_norm", attention.query_weight);
  inputs.add("key_norm", attention.key_weight);
  inputs.add("freqs", attention.freqs);
}

std::optional<RowPeers> peers_for(const cpu::TokenAttention& attention, const array& x) {
  return attention.group ? row_peers(*attention.group, x.shape(-1)) : std::nullopt;
}

void add_peers(NamedInputs& inputs, Kind& kind, const std::optional<RowPeers>& peers) {
  if (peers) {
    kind.ranks = peers->ranks;
    inputs.add("table", peers->table);
  }
}

Kind kind_of(const cpu::TokenAttention& attention, const std::vector<Streamed>& matrices) {
  Kind kind = {
      .ranks = 1,
      .whole = false,
      .adds = false,
      .biased = attention.joint[0].layout.biased,
      .normed = attention.heads.normed,
      .by_freqs = attention.freqs.has_value(),
      .gelu = false,
      .behind = false,
      .packed = 0};
  for (size_t i = 0; i < matrices.size(); ++i) {
    kind.packed |= matrices[i].matrix.packed() << i;
  }
  return kind;
}

} // namespace

std::optional<array> attend_token(const array& x, const cpu::TokenAttention& attention, mx::StreamOrDevice s) {
  auto gpu = streaming_gpu(s);
  auto matrices = gpu ? matrices_of(x, attention, *gpu) : std::nullopt;
  auto peers = peers_for(attention, x);
  bool fit = matrices && peers.has_value() == attention.group.has_value();
  auto plan = fit ? plan_for(*matrices, attention.heads, x.shape(2), {}, peers, *gpu) : std::nullopt;
  if (!plan) {
    return std::nullopt;
  }
  NamedInputs inputs;
  inputs.add("x", x);
  add_attention(inputs, attention, s);
  auto kind = kind_of(attention, *matrices);
  add_peers(inputs, kind, peers);
  return launch(kind, *plan, std::move(inputs), x, s)[0];
}

std::vector<array> layer_token(
    const array& x, const std::optional<array>& delta, const cpu::TokenLayer& layer, mx::StreamOrDevice s) {
  auto gpu = streaming_gpu(s);
  auto matrices = gpu ? matrices_of(x, layer, *gpu) : std::nullopt;
  auto peers = peers_for(layer.attention, x);
  bool fit = matrices && peers.has_value() == layer.attention.group.has_value() && (!delta || (delta->shape() == x.shape() && delta->dtype() == x.dtype() && !traced(*delta))) &&
      cpu::norms_fit(layer, [&](const array& weight) { return is_weight(weight, x.shape(2), x.dtype()); });
  auto plan = fit ? plan_for(*matrices, layer.attention.heads, x.shape(2), cpu::Epsilons(layer), peers, *gpu) : std::nullopt;
  if (!plan) {
    return {};
  }
  auto kind = kind_of(layer.attention, *matrices);
  kind.whole = true;
  kind.adds = delta.has_value();
  kind.gelu = layer.feed.gelu;
  kind.behind = layer.behind.has_value();
  NamedInputs inputs;
  inputs.add("x", x);
  inputs.add("delta", delta);
  inputs.add("first_norm", layer.first.weight);
  add_attention(inputs, layer.attention, s);
  inputs.add("second_norm", layer.second.weight);
  add_matrix(inputs, gates, layer.feed.joint[0]);
  add_matrix(inputs, down, layer.feed.last);
  if (layer.behind) {
    inputs.add("behind_attention", layer.behind->attention.weight);
    inputs.add("behind_feed", layer.behind->feed.weight);
  }
  add_peers(inputs, kind, peers);
  return launch_in_turn(kind, *std::move(plan), std::move(inputs), x, mx::to_stream(s));
}

} // namespace mlxlm::cuda
