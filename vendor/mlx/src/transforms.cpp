// JavaScript functions inside MLX: gradients, vmap, checkpointing, custom gradients, compile, export and import.
#include "abi.h"

#include "mlx/compile_impl.h"
#include "mlx/export.h"

#include <mutex>

namespace mlxlm {
namespace {

// JavaScript's one entry: function id, number of array lists; the lists lie in the mailbox as lengths, then handles.
// Returns how many handles it has posted, or -1 where it threw.
using Trampoline = int32_t (*)(int32_t id, int32_t lists);
Trampoline trampoline = nullptr;

// Ids whose last C++ owner is gone. MLX may drop a graph on a worker thread, so JavaScript collects them itself.
std::mutex dropped_mutex;
std::vector<int32_t> dropped;

template <class T>
class Registry {
 public:
  int32_t add(T value) {
    entries_.push_back(std::make_unique<T>(std::move(value)));
    return static_cast<int32_t>(entries_.size()) - 1;
  }
  T& get(int32_t id, const char* what) {
    if (id < 0 || id >= static_cast<int32_t>(entries_.size()) || !entries_[id]) {
      throw std::invalid_argument(std::string("unknown ") + what + " " + std::to_string(id));
    }
    return *entries_[id];
  }
  void remove(int32_t id) {
    if (id >= 0 && id < static_cast<int32_t>(entries_.size())) {
      entries_[id].reset();
    }
  }

 private:
  std::vector<std::unique_ptr<T>> entries_;
};

struct Compiled {
  ArrayFunction call;
  std::uintptr_t id;
};

template <class T>
Registry<T>& registry() {
  static auto* instance = new Registry<T>();
  return *instance;
}

// Values first, then gradients: how pairs of lists come back to JavaScript.
int32_t put_both(std::pair<std::vector<array>, std::vector<array>> lists) {
  auto all = std::move(lists.first);
  all.insert(all.end(), lists.second.begin(), lists.second.end());
  return put_all(std::move(all));
}

} // namespace

std::shared_ptr<void> closure_token(int32_t id) {
  return std::shared_ptr<void>(nullptr, [id](void*) {
    std::lock_guard lock(dropped_mutex);
    dropped.push_back(id);
  });
}

std::vector<array> call_javascript(int32_t id, const std::vector<const std::vector<array>*>& lists) {
  begin_scope();
  size_t depth = scope_depth();
  int32_t count = -1;
  std::vector<array> results;
  try {
    std::vector<int32_t> mail;
    for (auto list : lists) {
      mail.push_back(static_cast<int32_t>(list->size()));
    }
    for (auto list : lists) {
      for (const auto& value : *list) {
        mail.push_back(put(value));
      }
    }
    post(mail);
    count = trampoline(id, static_cast<int32_t>(lists.size()));
    if (count >= 0) {
      results = MailReader().arrays(count);
    }
  } catch (...) {
    while (scope_depth() >= depth) {
      end_scope({});
    }
    throw;
  }
  // A throw in JavaScript may have left scopes open inside this one.
  while (scope_depth() >= depth) {
    end_scope({});
  }
  if (count < 0) {
    throw ThrownInJavaScript();
  }
  return results;
}

ArrayFunction javascript_function(int32_t id) {
  return [id, token = closure_token(id)](const std::vector<array>& inputs) { return call_javascript(id, {&inputs}); };
}

} // namespace mlxlm

using namespace mlxlm;

extern "C" {

int32_t mlxlm_attach_trampoline(Trampoline function) {
  trampoline = function;
  return 0;
}

// Ids of JavaScript functions that nothing in C++ can call any more.
int32_t mlxlm_dropped_functions() {
  return guarded([] {
    std::lock_guard lock(dropped_mutex);
    int32_t count = post(dropped);
    dropped.clear();
    return count;
  });
}

// Mailbox in: inputs, then argnums. Out: outputs, then gradients.
int32_t mlxlm_value_and_grad(int32_t function, int32_t inputs, int32_t argnums) {
  return guarded([&] {
    MailReader mail;
    auto arrays = mail.arrays(inputs);
    auto indices = mail.ints(argnums);
    return put_both(mx::value_and_grad(javascript_function(function), indices)(arrays));
  });
}

// Mailbox in: primals, then cotangents. Out: outputs, then vector-Jacobian products.
int32_t mlxlm_vjp(int32_t function, int32_t primals, int32_t cotangents) {
  return guarded([&] {
    MailReader mail;
    auto at_point = mail.arrays(primals);
    auto weights = mail.arrays(cotangents);
    return put_both(mx::vjp(javascript_function(function), at_point, weights));
  });
}

// Mailbox in: primals, then tangents. Out: outputs, then Jacobian-vector products.
int32_t mlxlm_jvp(int32_t function, int32_t primals, int32_t tangents) {
  return guarded([&] {
    MailReader mail;
    auto at_point = mail.arrays(primals);
    auto directions = mail.arrays(tangents);
    return put_both(mx::jvp(javascript_function(function), at_point, directions));
  });
}

// Mailbox in: inputs, input axes (-1: not mapped), output axes.
int32_t mlxlm_vmap(int32_t function, int32_t inputs, int32_t in_axes, int32_t out_axes) {
  return guarded([&] {
    MailReader mail;
    auto arrays = mail.arrays(inputs);
    auto in = mail.ints(in_axes);
    auto out = mail.ints(out_axes);
    return put_all(mx::vmap(javascript_function(function), in, out)(arrays));
  });
}

// Calls the function so that its gradient recomputes it instead of keeping what lies between.
int32_t mlxlm_checkpoint(int32_t function, int32_t inputs) {
  return guarded([&] {
    auto arrays = MailReader().arrays(inputs);
    return put_all(mx::checkpoint(javascript_function(function))(arrays));
  });
}

// Calls `function` with its own rules: `vjp` gets primals, cotangents, outputs; `jvp` primals and tangents. -1: none.
int32_t mlxlm_custom_function(int32_t function, int32_t vjp, int32_t jvp, int32_t inputs) {
  return guarded([&] {
    auto arrays = MailReader().arrays(inputs);
    using Rule = std::function<std::vector<array>(
        const std::vector<array>&, const std::vector<array>&, const std::vector<array>&)>;
    using ForwardRule = std::function<std::vector<array>(
        const std::vector<array>&, const std::vector<array>&, const std::vector<int>&)>;
    std::optional<Rule> vjp_rule;
    if (vjp >= 0) {
      vjp_rule = [vjp, token = closure_token(vjp)](const auto& primals, const auto& cotangents, const auto& outputs) {
        return call_javascript(vjp, {&primals, &cotangents, &outputs});
      };
    }
    std::optional<ForwardRule> jvp_rule;
    if (jvp >= 0) {
      jvp_rule = [jvp, token = closure_token(jvp)](
                     const auto& primals, const auto& tangents, const std::vector<int>& argnums) {
        std::vector<array> which;
        for (auto argnum : argnums) {
          which.push_back(array(argnum));
        }
        return call_javascript(jvp, {&primals, &tangents, &which});
      };
    }
    return put_all(mx::custom_function(javascript_function(function), vjp_rule, jvp_rule)(arrays));
  });
}

// A compiled form of the function, traced at its first call. Returns its id.
int32_t mlxlm_compile(int32_t function, bool shapeless) {
  return guarded([&] {
    static std::uintptr_t next_id = 1;
    // MLX keys its cache by this number and uses addresses of functions itself: odd small numbers meet none of them.
    std::uintptr_t id = (next_id++ << 1) | 1;
    return registry<Compiled>().add({mx::detail::compile(javascript_function(function), id, shapeless), id});
  });
}

int32_t mlxlm_call_compiled(int32_t compiled, int32_t inputs) {
  return guarded([&] {
    auto arrays = MailReader().arrays(inputs);
    return put_all(registry<Compiled>().get(compiled, "compiled function").call(arrays));
  });
}

int32_t mlxlm_free_compiled(int32_t compiled) {
  return guarded([&] {
    auto& entry = registry<Compiled>().get(compiled, "compiled function");
    mx::detail::compile_erase(mx::detail::compile_cache(), entry.id);
    registry<Compiled>().remove(compiled);
    return 0;
  });
}

int32_t mlxlm_enable_compile(bool enabled) {
  return guarded([&] {
    enabled ? mx::enable_compile() : mx::disable_compile();
    return 0;
  });
}

int32_t mlxlm_export_function(const char* file, int32_t function, int32_t inputs, bool shapeless) {
  return guarded([&] {
    auto arrays = MailReader().arrays(inputs);
    mx::export_function(std::string(file), javascript_function(function), arrays, shapeless);
    return 0;
  });
}

int32_t mlxlm_import_function(const char* file) {
  return guarded([&] { return registry<mx::ImportedFunction>().add(mx::import_function(file)); });
}

int32_t mlxlm_call_imported(int32_t imported, int32_t inputs) {
  return guarded([&] {
    auto arrays = MailReader().arrays(inputs);
    return put_all(registry<mx::ImportedFunction>().get(imported, "imported function")(arrays));
  });
}

int32_t mlxlm_free_imported(int32_t imported) {
  return guarded([&] {
    registry<mx::ImportedFunction>().remove(imported);
    return 0;
  });
}

} // extern "C"
