// The tokens of a vocabulary by the bytes that they add to a text. Immutable; any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace wideload::grammar {

class TokenTrie {
 public:
  // Of models with so many ids, at least as many as the tokenizer's. A special token is the bytes
  // of SpecialBytes; a token without bytes, or with bytes that no text has, is none.
  TokenTrie(const tokenizer::Tokenizer& tokenizer, int64_t vocab_size);

  // A byte of some tokens; the nodes below it follow at once.
  struct Node {
    uint8_t byte = 0;
    uint16_t depth = 0;       // 0: a token's first byte
    int32_t end = 0;          // one past the nodes below it
    int32_t first_token = 0;  // of `tokens`: those that end in it
    int32_t num_tokens = 0;
  };
  const std::vector<Node>& nodes() const { return nodes_; }
  // In the order of their bytes.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  // Of `tokens`, those that end in the node.
  std::span<const int32_t> TokensIn(const Node& node) const {
    return {tokens_.data() + node.first_token, static_cast<size_t>(node.num_tokens)};
  }
  // And those that end below it, too.
  std::span<const int32_t> TokensUnder(const Node& node) const;

  // The bytes of a token; empty for one that is none. Any id.
  std::string_view BytesOf(int32_t token) const;
  // The longest token's.
  size_t max_depth() const { return max_depth_; }
  int64_t vocab_size() const { return static_cast<int64_t>(bytes_.size()); }

  // The bytes that a text with special tokens' spellings stands for: a spelling that is a special
  // token's becomes its SpecialBytes. `mark` is such a spelling, or any text.
  std::string MarkBytes(std::string_view mark) const;

  // Memory that grammars of this vocabulary hold for what they have found, in all.
  std::atomic<int64_t>& cached_bytes() const { return cached_bytes_; }

 private:
  const tokenizer::Tokenizer& tokenizer_;
  std::vector<std::string> bytes_;  // by id
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;
  size_t max_depth_ = 0;
  mutable std::atomic<int64_t> cached_bytes_{0};
};

}  // namespace wideload::grammar
