// Grammars: vocabularies, grammars compiled for one, and matchers that walk a grammar token by token and say which
// tokens may follow. xgrammar does the work; this is its part of the C ABI.
#include "abi.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <functional>
#include <variant>

#include <xgrammar/xgrammar.h>

#include "cpu/thread_pool.h"
#include "logging.h"
#include "mlx/allocator.h"

namespace mlxlm {
namespace {

struct Vocabulary {
  xgrammar::TokenizerInfo tokens;
  xgrammar::GrammarCompiler compiler;
};

// A grammar, and who waits for it. The thread that compiles holds it too, so it may be given up at any time.
struct Compilation {
  std::atomic<bool> done = false;
  std::optional<xgrammar::CompiledGrammar> grammar;
  std::string error;
  std::vector<std::string> warnings;
};

struct Walk {
  xgrammar::GrammarMatcher matcher;
  // How many tokens its vocabulary has.
  int32_t size;
};

using Thing = std::variant<std::monostate, std::shared_ptr<Vocabulary>, std::shared_ptr<Compilation>, Walk>;

constexpr int index_bits = 21;
constexpr int32_t index_mask = (1 << index_bits) - 1;
constexpr int32_t max_generation = (1 << (31 - index_bits)) - 1;

// Slots by handle, as in handles.cpp: a generation tells a freed one from the next.
struct Table {
  struct Slot {
    Thing thing;
    int32_t generation = 1;
  };
  std::vector<Slot> slots;
  std::vector<int32_t> free;
  int32_t live = 0;

  int32_t put(Thing thing) {
    int32_t index;
    if (free.empty()) {
      if (slots.size() > static_cast<size_t>(index_mask)) {
        throw std::length_error("too many grammars are alive at once");
      }
      index = static_cast<int32_t>(slots.size());
      slots.emplace_back();
    } else {
      index = free.back();
      free.pop_back();
    }
    slots[index].thing = std::move(thing);
    ++live;
    return slots[index].generation << index_bits | index;
  }

  Slot& slot(int32_t handle) {
    int32_t index = handle & index_mask;
    if (handle <= 0 || index >= static_cast<int32_t>(slots.size()) ||
        slots[index].generation != handle >> index_bits || slots[index].thing.index() == 0) {
      throw std::runtime_error("grammar used after it was freed");
    }
    return slots[index];
  }

  template <class T>
  T& at(int32_t handle) {
    auto value = std::get_if<T>(&slot(handle).thing);
    if (!value) {
      throw std::invalid_argument("a grammar's handle was given where another kind was expected");
    }
    return *value;
  }

  void erase(int32_t handle) {
    auto& freed = slot(handle);
    freed.thing = std::monostate();
    freed.generation = freed.generation == max_generation ? 1 : freed.generation + 1;
    free.push_back(handle & index_mask);
    --live;
  }
};

Table& table() {
  // Never destroyed: a thread may still compile when the process ends.
  static Table* instance = new Table();
  return *instance;
}

enum class Kind : int32_t { json_schema, ebnf, regex, structural_tag };

xgrammar::Grammar parsed(Kind kind, const std::string& text, const xgrammar::TokenizerInfo& tokens) {
  switch (kind) {
    case Kind::json_schema:
      // On one line, as Python's json.dumps writes.
      return xgrammar::Grammar::FromJSONSchema(text, false);
    case Kind::ebnf:
      return xgrammar::Grammar::FromEBNF(text);
    case Kind::regex:
      return xgrammar::Grammar::FromRegex(text);
    case Kind::structural_tag: {
      auto result = xgrammar::Grammar::FromStructuralTag(text, tokens);
      if (auto grammar = std::get_if<xgrammar::Grammar>(&result)) {
        return *grammar;
      }
      std::visit([](auto& error) { throw error; }, std::get<xgrammar::StructuralTagError>(result));
    }
  }
  throw std::invalid_argument("unknown kind of grammar");
}

void compile(Compilation& result, Vocabulary& vocabulary, Kind kind, const std::string& text) noexcept {
  try {
    xgrammar::Warnings().clear();
    result.grammar.emplace(vocabulary.compiler.CompileGrammar(parsed(kind, text, vocabulary.tokens)));
  } catch (const std::exception& error) {
    result.error = error.what();
  } catch (...) {
    result.error = "xgrammar threw something that is not a std::exception";
  }
  result.warnings = std::move(xgrammar::Warnings());
  result.done = true;
}

// Parsers of grammars call themselves for each pair of brackets: with the text's length limited, no text is so deeply
// nested that this much stack would not do. Pages that are not touched cost nothing.
constexpr size_t stack_size = size_t{1} << 29;

void start_thread(std::function<void()> body) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, stack_size);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  auto owned = std::make_unique<std::function<void()>>(std::move(body));
  pthread_t thread;
  int failed = pthread_create(
      &thread, &attributes,
      [](void* argument) -> void* {
        std::unique_ptr<std::function<void()>> run(static_cast<std::function<void()>*>(argument));
        (*run)();
        return nullptr;
      },
      owned.get());
  pthread_attr_destroy(&attributes);
  if (failed) {
    throw std::system_error(failed, std::generic_category());
  }
  owned.release();
}

// Writes what may follow as bits of `vocabulary` tokens: of a draft model, that may be others than the matcher's.
void fill(xgrammar::GrammarMatcher& matcher, int32_t size, uint32_t* bits, int32_t vocabulary) {
  auto words = [](int32_t tokens) { return (tokens + 31) / 32; };
  std::vector<uint32_t> own;
  uint32_t* filled = bits;
  if (size != vocabulary) {
    own.resize(words(size));
    filled = own.data();
  }
  int64_t shape[] = {words(size)};
  DLTensor tensor = {};
  tensor.data = filled;
  tensor.device = {kDLCPU, 0};
  tensor.ndim = 1;
  tensor.dtype = xgrammar::GetBitmaskDLType();
  tensor.shape = shape;
  if (!matcher.FillNextTokenBitmask(&tensor)) {
    std::fill_n(filled, words(size), ~uint32_t{0});
  }
  if (filled != bits) {
    std::copy_n(filled, std::min(words(size), words(vocabulary)), bits);
  }
}

// How the mask of a row is described to JavaScript: a token's id where it is the only one, else one of these.
constexpr int32_t several = -1;
constexpr int32_t none = -2;

int32_t described(const uint32_t* words, int count) {
  int32_t only = none;
  for (int i = 0; i < count; ++i) {
    if (words[i] == 0) {
      continue;
    }
    if (only != none || !std::has_single_bit(words[i])) {
      return several;
    }
    only = i * 32 + std::countr_zero(words[i]);
  }
  return only;
}

} // namespace
} // namespace mlxlm

using namespace mlxlm;

extern "C" {

// The bytes of all tokens one after the other, and where each ends; a token without bytes is never part of a text.
// Mailbox: the ids of those that end a text.
int32_t mlxlm_grammar_vocabulary(
    const char* bytes, double length, const int32_t* ends, int32_t count, int32_t stops, int32_t threads) {
  return guarded([&] {
    std::vector<std::string> tokens;
    tokens.reserve(count);
    int32_t start = 0;
    for (int32_t i = 0; i < count; ++i) {
      if (ends[i] < start || ends[i] > length) {
        throw std::invalid_argument("the ends of a vocabulary's tokens are not in order");
      }
      tokens.emplace_back(bytes + start, ends[i] - start);
      start = ends[i];
    }
    auto ids = MailReader().ints(stops);
    std::erase_if(ids, [&](int32_t id) { return id < 0 || id >= count; });
    xgrammar::TokenizerInfo info(tokens, xgrammar::VocabType::RAW, count, ids);
    // Masks are made as they are asked for: a long grammar has many that no answer ever comes to.
    xgrammar::GrammarCompiler compiler(info, std::max(threads, 1), false, -1, true);
    return table().put(std::make_shared<Vocabulary>(Vocabulary{info, compiler}));
  });
}

// Begins to compile a grammar on a thread of its own.
int32_t mlxlm_grammar_compile(int32_t vocabulary, int32_t kind, const char* text, int32_t length) {
  return guarded([&] {
    auto tokens = table().at<std::shared_ptr<Vocabulary>>(vocabulary);
    auto result = std::make_shared<Compilation>();
    int32_t handle = table().put(result);
    try {
      start_thread([result, tokens, kind = static_cast<Kind>(kind), text = std::string(text, length)] {
        compile(*result, *tokens, kind, text);
      });
    } catch (...) {
      table().erase(handle);
      throw;
    }
    return handle;
  });
}

// 0: not yet; 1: compiled. Text: what xgrammar does not do of what the grammar asks, a field each.
int32_t mlxlm_grammar_compiled(int32_t grammar) {
  return guarded([&] {
    auto& compilation = *table().at<std::shared_ptr<Compilation>>(grammar);
    if (!compilation.done) {
      return 0;
    }
    if (!compilation.grammar) {
      throw std::runtime_error(compilation.error);
    }
    std::string text;
    for (auto& warning : compilation.warnings) {
      text += warning.substr(0, warning.find('\0')) + '\0';
    }
    *mailbox().number = post_text(std::move(text));
    return 1;
  });
}

int32_t mlxlm_grammar_matcher(int32_t grammar) {
  return guarded([&] {
    auto& compilation = *table().at<std::shared_ptr<Compilation>>(grammar);
    if (!compilation.done || !compilation.grammar) {
      throw std::logic_error("a grammar is used before it is compiled");
    }
    auto& grammar = *compilation.grammar;
    return table().put(Walk{xgrammar::GrammarMatcher(grammar), grammar.GetTokenizerInfo().GetVocabSize()});
  });
}

// 1: the token was taken; 0: the grammar does not allow it, and nothing has changed.
int32_t mlxlm_grammar_accept(int32_t matcher, int32_t token) {
  return guarded([&] {
    auto& state = table().at<Walk>(matcher).matcher;
    return !state.IsTerminated() && state.AcceptToken(token) ? 1 : 0;
  });
}

int32_t mlxlm_grammar_rollback(int32_t matcher, int32_t tokens) {
  return guarded([&] {
    table().at<Walk>(matcher).matcher.Rollback(tokens);
    return 0;
  });
}

// 0: more must follow; 1: the text may end here; 2: it has ended.
int32_t mlxlm_grammar_state(int32_t matcher) {
  return guarded([&] {
    auto& state = table().at<Walk>(matcher).matcher;
    return state.IsTerminated() ? 2 : state.IsCompleted() ? 1 : 0;
  });
}

// Posts the tokens that write what must follow.
int32_t mlxlm_grammar_forced(int32_t matcher) {
  return guarded([&] { return post(table().at<Walk>(matcher).matcher.FindJumpForwardTokens()); });
}

// The text that must follow, one field.
int32_t mlxlm_grammar_forced_text(int32_t matcher) {
  return guarded([&] {
    auto text = table().at<Walk>(matcher).matcher.FindJumpForwardString();
    return post_text(text + '\0');
  });
}

// Which of `vocabulary` tokens may follow in each row, several rows at a time: (rows, ⌈vocabulary / 32⌉) uint32, a bit a token. Mailbox: a matcher
// a row, 0 for a row where all may; then pairs of a row and a token that may follow beside what the grammar allows, and
// pairs of a row and a token that may not. Posts for each row the one token that may follow, or whether there are several
// or none.
int32_t mlxlm_grammar_mask(int32_t rows, int32_t extras, int32_t without, int32_t vocabulary) {
  return guarded([&] {
    MailReader mail;
    auto matchers = mail.ints(rows);
    auto more = mail.ints(extras);
    auto less = mail.ints(without);
    int words = (vocabulary + 31) / 32;
    array mask(
        mx::allocator::malloc(static_cast<size_t>(rows) * words * sizeof(uint32_t)), {rows, words}, mx::uint32);
    auto data = mask.data<uint32_t>();
    std::fill_n(data, static_cast<size_t>(rows) * words, 0);
    // A matcher asked for twice is asked once: filling changes its state for a while.
    std::vector<int> firsts;
    std::vector<Walk*> walks;
    for (int32_t matcher : matchers) {
      firsts.push_back(std::find(matchers.begin(), matchers.end(), matcher) - matchers.begin());
      walks.push_back(matcher == 0 ? nullptr : &table().at<Walk>(matcher));
    }
    std::vector<std::exception_ptr> errors(rows);
    cpu::parallel_for(rows, [&](int64_t row) {
      uint32_t* bits = data + row * words;
      try {
        if (!walks[row]) {
          std::fill_n(bits, words, ~uint32_t{0});
        } else if (firsts[row] == row && !walks[row]->matcher.IsTerminated()) {
          fill(walks[row]->matcher, walks[row]->size, bits, vocabulary);
        }
      } catch (...) {
        errors[row] = std::current_exception();
      }
    });
    for (int row = 0; row < rows; ++row) {
      std::copy_n(data + static_cast<size_t>(firsts[row]) * words, words, data + static_cast<size_t>(row) * words);
    }
    for (auto& error : errors) {
      if (error) {
        std::rethrow_exception(error);
      }
    }
    auto each = [&](const std::vector<int>& pairs, auto&& change) {
      for (size_t i = 0; i + 1 < pairs.size(); i += 2) {
        int row = pairs[i];
        int token = pairs[i + 1];
        if (row < 0 || row >= rows || token < 0 || token >= vocabulary) {
          throw std::out_of_range("a token of a mask lies outside of it");
        }
        change(data[static_cast<size_t>(row) * words + token / 32], uint32_t{1} << (token % 32));
      }
    };
    each(more, [](uint32_t& word, uint32_t bit) { word |= bit; });
    each(less, [](uint32_t& word, uint32_t bit) { word &= ~bit; });
    std::vector<int32_t> descriptions;
    for (int row = 0; row < rows; ++row) {
      descriptions.push_back(described(data + static_cast<size_t>(row) * words, words));
    }
    post(descriptions);
    return put(std::move(mask));
  });
}

int32_t mlxlm_grammar_free(int32_t handle) {
  return guarded([&] {
    table().erase(handle);
    return 0;
  });
}

int32_t mlxlm_live_grammars() {
  return table().live;
}

} // extern "C"
