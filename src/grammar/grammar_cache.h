// The grammars of requests, made once for those that ask for the same. Any thread.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "grammar/token_grammar.h"

namespace wideload::grammar {

class GrammarCache {
 public:
  // Of a vocabulary.
  explicit GrammarCache(std::shared_ptr<const TokenTrie> tokens) : tokens_(std::move(tokens)) {}

  // Those used last are kept, but none of a longer key.
  static constexpr size_t kMaxKept = 64;
  static constexpr size_t kMaxKeyBytes = 1 << 16;

  // The grammar of this key, made by `make` if it is not there. Errors: what `make` throws.
  std::shared_ptr<TokenGrammar> Get(const std::string& key, const std::function<Grammar()>& make);
  const TokenTrie& tokens() const { return *tokens_; }

 private:
  using Kept = std::pair<std::string, std::shared_ptr<TokenGrammar>>;

  std::shared_ptr<const TokenTrie> tokens_;
  std::mutex mutex_;
  std::list<Kept> kept_;  // used last first
  std::unordered_map<std::string, std::list<Kept>::iterator> places_;
};

}  // namespace wideload::grammar
