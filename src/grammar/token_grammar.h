// A grammar over the tokens of a vocabulary: which may come next. TokenGrammar may be used by many
// threads and is shared by all requests that have it; a TokenMatcher belongs to one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/reading.h"
#include "grammar/token_trie.h"

namespace wideload::grammar {

// Which tokens are allowed: bit i % 64 of word i / 64 is token i's.
using TokenBits = std::vector<uint64_t>;
// The words of TokenBits for so many ids.
inline int64_t TokenWords(int64_t vocab_size) { return (vocab_size + 63) / 64; }

class TokenGrammar {
 public:
  // Finds what the first token may be, and what may be in the grammar's widest states, which take
  // longest: some milliseconds.
  TokenGrammar(Grammar grammar, std::shared_ptr<const TokenTrie> trie);
  ~TokenGrammar();
  TokenGrammar(const TokenGrammar&) = delete;
  TokenGrammar& operator=(const TokenGrammar&) = delete;

  const TokenTrie& trie() const { return *trie_; }
  const Grammar& grammar() const { return grammar_; }
  // Of this object alone, in this process.
  uint64_t id() const { return id_; }

  // What of its memory is dropped when it holds more, or all grammars of the vocabulary together
  // do: found again when needed.
  static constexpr int64_t kMaxCachedBytes = int64_t{16} << 20;
  static constexpr int64_t kMaxCachedBytesOfAll = int64_t{256} << 20;

 private:
  friend class TokenMatcher;
  // Of the tokens whose first byte leaves a state of an automaton by an edge: those that need
  // nothing of what surrounds the state, and those for which this must be asked.
  struct StateTokens {
    bool is_dense = false;
    TokenBits allowed;           // dense
    std::vector<int32_t> few;    // else
    std::vector<int32_t> asked;  // in the order of their bytes
    int64_t size_bytes() const;
  };
  // Dropped as a whole.
  struct Cache {
    explicit Cache(const Grammar& grammar) : readings(grammar) {}
    Readings readings;
    std::unordered_map<int32_t, std::shared_ptr<const TokenBits>> allowed;  // by reading
    int64_t allowed_bytes = 0;
  };

  void DropIfLarge();
  void CountBytes();
  const StateTokens& TokensOf(int32_t state);
  std::shared_ptr<const TokenBits> AllowedIn(int32_t reading);
  void AddByState(int32_t reading, std::span<const int32_t> states, TokenBits& bits);
  void AddByWalk(int32_t reading, TokenBits& bits);
  int32_t NextOf(int32_t reading, int32_t token);

  const uint64_t id_;
  const Grammar grammar_;
  const std::shared_ptr<const TokenTrie> trie_;
  std::mutex mutex_;  // of all that follows
  std::shared_ptr<Cache> cache_;
  std::unordered_map<int32_t, StateTokens> of_state_;
  int64_t of_state_bytes_ = 0;
  int64_t counted_bytes_ = 0;  // in trie_->cached_bytes()
};

// Where one sequence's tokens stand in the grammar. Copies are cheap.
class TokenMatcher {
 public:
  // Before the first token.
  explicit TokenMatcher(std::shared_ptr<TokenGrammar> grammar);

  // Takes the next token. False, and nothing may follow, if it is not allowed.
  bool Advance(int32_t token);
  // The text may end here.
  bool IsEnd() const;
  // Something may follow.
  bool GoesOn() const;
  // Those that may come next: [TokenWords(vocab_size)]. Ends of sequences are not among them.
  std::shared_ptr<const TokenBits> Allowed();
  const TokenGrammar& grammar() const { return *grammar_; }

 private:
  void MoveToCache();

  std::shared_ptr<TokenGrammar> grammar_;
  std::shared_ptr<TokenGrammar::Cache> cache_;
  int32_t reading_ = 0;
};

}  // namespace wideload::grammar
