#include "grammar/token_trie.h"

#include <algorithm>

#include "base/error.h"
#include "grammar/grammar.h"

namespace wideload::grammar {
namespace {

constexpr uint8_t kFirstNoText = 0xF8;  // this byte and those above are in no UTF-8

bool IsOfText(std::string_view bytes) {
  return std::ranges::none_of(bytes,
                              [](char c) { return static_cast<uint8_t>(c) >= kFirstNoText; });
}

}  // namespace

TokenTrie::TokenTrie(const tokenizer::Tokenizer& tokenizer, int64_t vocab_size)
    : tokenizer_(tokenizer), bytes_(static_cast<size_t>(vocab_size)) {
  constexpr size_t kMaxTokenBytes = UINT16_MAX;
  constexpr int32_t kMaxIds = 1 << 24;  // what SpecialBytes holds
  const auto num_ids = static_cast<int32_t>(
      std::min<int64_t>({vocab_size, int64_t{tokenizer.NumIds()}, int64_t{kMaxIds}}));
  for (int32_t id = 0; id < num_ids; ++id) {
    std::string& bytes = bytes_[static_cast<size_t>(id)];
    const std::string_view text = tokenizer.TokenBytes(id);
    if (tokenizer.IsSpecial(id))
      bytes = SpecialBytes(id);
    else if (text.size() < kMaxTokenBytes && IsOfText(text))
      bytes = text;
    if (!bytes.empty()) tokens_.push_back(id);
    max_depth_ = std::max(max_depth_, bytes.size());
  }
  std::ranges::sort(tokens_, [this](int32_t a, int32_t b) {
    const std::string_view left = bytes_[static_cast<size_t>(a)];
    const std::string_view right = bytes_[static_cast<size_t>(b)];
    return left != right ? left < right : a < b;
  });
  std::vector<int32_t> path;  // the nodes of the bytes of the token before
  std::string_view before;
  const auto close = [&](size_t length) {
    for (; path.size() > length; path.pop_back())
      nodes_[static_cast<size_t>(path.back())].end = static_cast<int32_t>(nodes_.size());
  };
  for (size_t t = 0; t < tokens_.size(); ++t) {
    const std::string_view bytes = bytes_[static_cast<size_t>(tokens_[t])];
    const auto differs = std::ranges::mismatch(before, bytes);
    close(static_cast<size_t>(differs.in2 - bytes.begin()));
    while (path.size() < bytes.size()) {
      const auto depth = static_cast<uint16_t>(path.size());
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({.byte = static_cast<uint8_t>(bytes[depth]),
                        .depth = depth,
                        .first_token = static_cast<int32_t>(t)});
    }
    ++nodes_[static_cast<size_t>(path.back())].num_tokens;
    before = bytes;
  }
  close(0);
}

std::span<const int32_t> TokenTrie::TokensUnder(const Node& node) const {
  const int32_t end = node.end < std::ssize(nodes_)
                          ? nodes_[static_cast<size_t>(node.end)].first_token
                          : static_cast<int32_t>(tokens_.size());
  return std::span(tokens_).subspan(static_cast<size_t>(node.first_token),
                                    static_cast<size_t>(end - node.first_token));
}

std::string_view TokenTrie::BytesOf(int32_t token) const {
  return token >= 0 && token < vocab_size() ? std::string_view(bytes_[static_cast<size_t>(token)])
                                            : std::string_view();
}

std::string TokenTrie::MarkBytes(std::string_view mark) const {
  const std::optional<int32_t> id = tokenizer_.TokenId(mark);
  return id && tokenizer_.IsSpecial(*id) ? SpecialBytes(*id) : std::string(mark);
}

}  // namespace wideload::grammar
