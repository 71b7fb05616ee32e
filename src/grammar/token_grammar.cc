#include "grammar/token_grammar.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace wideload::grammar {
namespace {

void SetBit(TokenBits& bits, int32_t token) {
  bits[static_cast<size_t>(token) / 64] |= uint64_t{1} << (static_cast<size_t>(token) % 64);
}

bool HasBit(const TokenBits& bits, int32_t token) {
  return (bits[static_cast<size_t>(token) / 64] >> (static_cast<size_t>(token) % 64) & 1) != 0;
}

// The states with the most bytes, first those with more.
std::vector<int32_t> WidestStates(const Grammar& grammar, size_t count) {
  std::vector<std::pair<int, int32_t>> wide;
  for (size_t s = 0; s < grammar.states.size(); ++s) {
    int num_bytes = 0;
    const Grammar::State& state = grammar.states[s];
    for (int32_t e = 0; e < state.num_edges; ++e) {
      const Grammar::Edge& edge =
          grammar.edges[static_cast<size_t>(state.first_edge) + static_cast<size_t>(e)];
      num_bytes += edge.last - edge.first + 1;
    }
    if (num_bytes >= 64) wide.emplace_back(-num_bytes, static_cast<int32_t>(s));
  }
  std::sort(wide.begin(), wide.end());
  std::vector<int32_t> states;
  for (size_t i = 0; i < std::min(count, wide.size()); ++i) states.push_back(wide[i].second);
  return states;
}

uint64_t NextId() {
  static std::atomic<uint64_t> next{0};
  return next.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

int64_t TokenGrammar::StateTokens::size_bytes() const {
  return static_cast<int64_t>(allowed.size() * 8 + few.size() * 4 + asked.size() * 4) + 128;
}

TokenGrammar::TokenGrammar(Grammar grammar, std::shared_ptr<const TokenTrie> trie)
    : id_(NextId()),
      grammar_(std::move(grammar)),
      trie_(std::move(trie)),
      cache_(std::make_shared<Cache>(grammar_)) {
  constexpr size_t kNumPrepared = 8;
  for (const int32_t state : WidestStates(grammar_, kNumPrepared)) TokensOf(state);
  AllowedIn(cache_->readings.Begin());
  CountBytes();
}

TokenGrammar::~TokenGrammar() { trie_->cached_bytes() -= counted_bytes_; }

void TokenGrammar::CountBytes() {
  const int64_t bytes = grammar_.size_bytes() + cache_->readings.size_bytes() +
                        cache_->allowed_bytes + of_state_bytes_;
  trie_->cached_bytes() += bytes - std::exchange(counted_bytes_, bytes);
}

void TokenGrammar::DropIfLarge() {
  constexpr int64_t kAlwaysKept = int64_t{1} << 20;  // beside the grammar
  const int64_t bytes = counted_bytes_ - grammar_.size_bytes();
  const bool is_large = bytes > kMaxCachedBytes ||
                        (bytes > kAlwaysKept && trie_->cached_bytes() > kMaxCachedBytesOfAll);
  if (!is_large) return;
  cache_ = std::make_shared<Cache>(grammar_);
  of_state_.clear();
  of_state_bytes_ = 0;
  CountBytes();
}

const TokenGrammar::StateTokens& TokenGrammar::TokensOf(int32_t state) {
  const auto found = of_state_.find(state);
  if (found != of_state_.end()) return found->second;
  Readings& readings = cache_->readings;
  // Of each depth the reading after its byte, and whether the rule could have ended before it.
  struct Place {
    int32_t reading = 0;
    bool may_have_ended = false;
  };
  std::vector<Place> places(trie_->max_depth() + 1);
  places[0].reading = readings.BeginInside(state);
  std::vector<int32_t> allowed;
  StateTokens result;
  const std::vector<TokenTrie::Node>& nodes = trie_->nodes();
  for (size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& node = nodes[i];
    const Place& before = places[node.depth];
    Place& here = places[size_t{node.depth} + 1];
    here.reading = readings.Next(before.reading, node.byte);
    here.may_have_ended = before.may_have_ended || readings.IsEnd(before.reading);
    if (here.reading != Readings::kDead) {
      const auto tokens = trie_->TokensIn(node);
      allowed.insert(allowed.end(), tokens.begin(), tokens.end());
    } else if (here.may_have_ended) {
      const auto under = trie_->TokensUnder(node);
      result.asked.insert(result.asked.end(), under.begin(), under.end());
    }
    i = here.reading != Readings::kDead ? i + 1 : static_cast<size_t>(node.end);
  }
  result.is_dense = std::ssize(allowed) * 4 > TokenWords(trie_->vocab_size()) * 8;
  if (result.is_dense) {
    result.allowed.resize(static_cast<size_t>(TokenWords(trie_->vocab_size())));
    for (const int32_t token : allowed) SetBit(result.allowed, token);
  } else {
    result.few = std::move(allowed);
  }
  of_state_bytes_ += result.size_bytes();
  return of_state_.emplace(state, std::move(result)).first->second;
}

int32_t TokenGrammar::NextOf(int32_t reading, int32_t token) {
  const std::string_view bytes = trie_->BytesOf(token);
  if (bytes.empty()) return Readings::kDead;
  for (const char c : bytes) reading = cache_->readings.Next(reading, static_cast<uint8_t>(c));
  return reading;
}

// What is known of a state serves all readings that are in it.
void TokenGrammar::AddByState(int32_t reading, std::span<const int32_t> states, TokenBits& bits) {
  for (const int32_t state : states) {
    const StateTokens& tokens = TokensOf(state);
    for (size_t i = 0; i < tokens.allowed.size(); ++i) bits[i] |= tokens.allowed[i];
    for (const int32_t token : tokens.few) SetBit(bits, token);
  }
  for (const int32_t state : states)
    for (const int32_t token : TokensOf(state).asked)
      if (!HasBit(bits, token) && NextOf(reading, token) != Readings::kDead) SetBit(bits, token);
}

void TokenGrammar::AddByWalk(int32_t reading, TokenBits& bits) {
  std::vector<int32_t> readings(trie_->max_depth() + 1);
  readings[0] = reading;
  const std::vector<TokenTrie::Node>& nodes = trie_->nodes();
  for (size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& node = nodes[i];
    const int32_t next = cache_->readings.Next(readings[node.depth], node.byte);
    readings[size_t{node.depth} + 1] = next;
    i = next != Readings::kDead ? i + 1 : static_cast<size_t>(node.end);
    if (next == Readings::kDead) continue;
    for (const int32_t token : trie_->TokensIn(node)) SetBit(bits, token);
  }
}

std::shared_ptr<const TokenBits> TokenGrammar::AllowedIn(int32_t reading) {
  constexpr size_t kFewStates = 4;
  const auto known = cache_->allowed.find(reading);
  if (known != cache_->allowed.end()) return known->second;
  TokenBits bits(static_cast<size_t>(TokenWords(trie_->vocab_size())));
  if (reading != Readings::kDead) {
    const std::vector<int32_t> states = cache_->readings.StatesOf(reading);
    if (states.size() <= kFewStates)
      AddByState(reading, states, bits);
    else
      AddByWalk(reading, bits);
  }
  cache_->allowed_bytes += static_cast<int64_t>(bits.size()) * 8 + 96;
  return cache_->allowed[reading] = std::make_shared<const TokenBits>(std::move(bits));
}

TokenMatcher::TokenMatcher(std::shared_ptr<TokenGrammar> grammar) : grammar_(std::move(grammar)) {
  const std::lock_guard lock(grammar_->mutex_);
  cache_ = grammar_->cache_;
  reading_ = cache_->readings.Begin();
}

// What was found before may have been dropped.
void TokenMatcher::MoveToCache() {
  if (cache_ == grammar_->cache_) return;
  reading_ = grammar_->cache_->readings.Take(cache_->readings, reading_);
  cache_ = grammar_->cache_;
}

bool TokenMatcher::Advance(int32_t token) {
  const std::lock_guard lock(grammar_->mutex_);
  MoveToCache();
  reading_ = grammar_->NextOf(reading_, token);
  return reading_ != Readings::kDead;
}

bool TokenMatcher::IsEnd() const {
  const std::lock_guard lock(grammar_->mutex_);
  return cache_->readings.IsEnd(reading_);
}

bool TokenMatcher::GoesOn() const {
  const std::lock_guard lock(grammar_->mutex_);
  return cache_->readings.GoesOn(reading_);
}

std::shared_ptr<const TokenBits> TokenMatcher::Allowed() {
  const std::lock_guard lock(grammar_->mutex_);
  grammar_->DropIfLarge();
  MoveToCache();
  std::shared_ptr<const TokenBits> bits = grammar_->AllowedIn(reading_);
  grammar_->CountBytes();
  return bits;
}

}  // namespace wideload::grammar
