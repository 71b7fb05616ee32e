#include "grammar/grammar_cache.h"

namespace wideload::grammar {

std::shared_ptr<TokenGrammar> GrammarCache::Get(const std::string& key,
                                                const std::function<Grammar()>& make) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = places_.find(key);
    if (found != places_.end()) {
      kept_.splice(kept_.begin(), kept_, found->second);
      return kept_.front().second;
    }
  }
  // Two that ask at once may both make it; nobody waits for another's.
  auto made = std::make_shared<TokenGrammar>(make(), tokens_);
  const std::lock_guard lock(mutex_);
  if (key.size() > kMaxKeyBytes || places_.contains(key)) return made;
  kept_.emplace_front(key, made);
  places_.emplace(key, kept_.begin());
  if (kept_.size() > kMaxKept) {
    places_.erase(kept_.back().first);
    kept_.pop_back();
  }
  return made;
}

}  // namespace wideload::grammar
