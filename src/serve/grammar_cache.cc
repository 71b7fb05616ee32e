#include "serve/grammar_cache.h"

namespace wideload::serve {

std::shared_ptr<grammar::TokenGrammar> GrammarCache::Get(
    const std::string& key, const std::function<grammar::Grammar()>& make) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = places_.find(key);
    if (found != places_.end()) {
      kept_.splice(kept_.begin(), kept_, found->second);
      return kept_.front().second;
    }
  }
  // Two that ask at once may both make it; nobody waits for another's.
  auto made = std::make_shared<grammar::TokenGrammar>(make(), tokens_);
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

}  // namespace wideload::serve
