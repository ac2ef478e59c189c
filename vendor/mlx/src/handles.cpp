// The slot table: arrays by handle, scopes that free in one go, kept arrays that outlive scopes.
#include "abi.h"

namespace mlxlm {
namespace {

constexpr int index_bits = 21;
constexpr int32_t index_mask = (1 << index_bits) - 1;
constexpr int32_t max_generation = (1 << (31 - index_bits)) - 1;
constexpr int32_t slots_per_block = 4096;

// A freed slot waits behind this many others before it is used again, so that a stale handle meets an older
// generation, not a new array.
constexpr int32_t min_free_before_reuse = 1024;

struct Slot {
  std::optional<array> value;
  int32_t generation = 1;
  int32_t keeps = 0;
  int32_t next_free = -1;
  bool escaping = false;
};

struct Table {
  std::vector<std::unique_ptr<Slot[]>> blocks;
  int32_t size = 0;
  int32_t first_free = -1;
  int32_t last_free = -1;
  int32_t free_count = 0;
  int32_t live = 0;

  std::vector<Handle> arena;
  std::vector<size_t> scopes;

  Slot& slot(int32_t index) {
    return blocks[index / slots_per_block][index % slots_per_block];
  }
};

Table& table() {
  // Never destroyed: MLX's own statics may be gone when the process ends, and arrays must not outlive them.
  static Table* instance = new Table();
  return *instance;
}

int32_t take_slot() {
  auto& t = table();
  if (t.free_count > min_free_before_reuse || t.size > index_mask) {
    if (t.first_free < 0) {
      throw std::length_error(
          "2,097,152 tensors are alive at once: something keeps tensors that nothing frees (wrap the work in a scope)");
    }
    int32_t index = t.first_free;
    t.first_free = t.slot(index).next_free;
    if (t.first_free < 0) {
      t.last_free = -1;
    }
    --t.free_count;
    return index;
  }
  if (t.size % slots_per_block == 0) {
    t.blocks.push_back(std::make_unique<Slot[]>(slots_per_block));
  }
  return t.size++;
}

// The live slot behind a handle, or nullptr.
Slot* find(Handle handle) {
  auto& t = table();
  int32_t index = handle & index_mask;
  if (handle <= 0 || index >= t.size) {
    return nullptr;
  }
  auto& slot = t.slot(index);
  return slot.value && slot.generation == handle >> index_bits ? &slot : nullptr;
}

Slot& live_slot(Handle handle) {
  auto slot = find(handle);
  if (!slot) {
    throw std::runtime_error("tensor used after it was freed: return it from its scope, or keep() it");
  }
  return *slot;
}

void free_slot(Handle handle, Slot& slot) {
  auto& t = table();
  int32_t index = handle & index_mask;
  slot.value.reset();
  slot.generation = slot.generation == max_generation ? 1 : slot.generation + 1;
  slot.keeps = 0;
  slot.next_free = -1;
  if (t.last_free >= 0) {
    t.slot(t.last_free).next_free = index;
  } else {
    t.first_free = index;
  }
  t.last_free = index;
  ++t.free_count;
  --t.live;
}

} // namespace

Handle put(array value) {
  auto& t = table();
  int32_t index = take_slot();
  auto& slot = t.slot(index);
  slot.value.emplace(std::move(value));
  ++t.live;
  Handle handle = slot.generation << index_bits | index;
  if (!t.scopes.empty()) {
    t.arena.push_back(handle);
  }
  return handle;
}

array& at(Handle handle) {
  return *live_slot(handle).value;
}

std::optional<array> maybe_at(Handle handle) {
  return handle == 0 ? std::nullopt : std::optional<array>(at(handle));
}

void begin_scope() {
  table().scopes.push_back(table().arena.size());
}

void end_scope(const std::vector<Handle>& kept) {
  auto& t = table();
  if (t.scopes.empty()) {
    throw std::logic_error("a scope was left that was never entered");
  }
  for (auto handle : kept) {
    if (auto slot = find(handle)) {
      slot->escaping = true;
    }
  }
  size_t from = t.scopes.back();
  t.scopes.pop_back();
  size_t to = from;
  bool outermost = t.scopes.empty();
  for (size_t i = from; i < t.arena.size(); ++i) {
    Handle handle = t.arena[i];
    auto slot = find(handle);
    if (!slot || slot->keeps > 0) {
      continue;
    }
    if (!slot->escaping) {
      free_slot(handle, *slot);
    } else if (!outermost) {
      t.arena[to++] = handle;
    }
  }
  t.arena.resize(to);
  for (auto handle : kept) {
    if (auto slot = find(handle)) {
      slot->escaping = false;
    }
  }
}

size_t scope_depth() {
  return table().scopes.size();
}

void keep(Handle handle) {
  ++live_slot(handle).keeps;
}

void release(Handle handle) {
  auto& slot = live_slot(handle);
  if (slot.keeps > 0 && --slot.keeps > 0) {
    return;
  }
  if (table().scopes.empty()) {
    free_slot(handle, slot);
  } else {
    table().arena.push_back(handle);
  }
}

void free_array(Handle handle) {
  free_slot(handle, live_slot(handle));
}

int32_t live_arrays() {
  return table().live;
}

} // namespace mlxlm

using namespace mlxlm;

extern "C" {

int32_t mlxlm_scope_begin() {
  return guarded([] {
    begin_scope();
    return 0;
  });
}

int32_t mlxlm_scope_end(int32_t kept) {
  return guarded([&] {
    end_scope(MailReader().ints(kept));
    return 0;
  });
}

int32_t mlxlm_keep(int32_t count) {
  return guarded([&] {
    for (auto handle : MailReader().ints(count)) {
      keep(handle);
    }
    return 0;
  });
}

int32_t mlxlm_release(int32_t count) {
  return guarded([&] {
    for (auto handle : MailReader().ints(count)) {
      release(handle);
    }
    return 0;
  });
}

int32_t mlxlm_free(int32_t handle) {
  return guarded([&] {
    free_array(handle);
    return 0;
  });
}

int32_t mlxlm_live_arrays() {
  return live_arrays();
}

} // extern "C"
