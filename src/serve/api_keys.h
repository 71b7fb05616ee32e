// The keys that clients may show. Immutable; thread-safe.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "serve/refusal.h"

namespace wideload::serve {

class ApiKeys {
 public:
  // Of none: none is asked for.
  explicit ApiKeys(std::vector<std::string> keys) : keys_(std::move(keys)) {}
  bool empty() const { return keys_.empty(); }
  // The place among the keys of that in a header "Bearer KEY"; nothing when there is none. Takes a
  // time that depends on the lengths of the keys alone.
  std::optional<size_t> Find(const std::string& authorization) const;

 private:
  std::vector<std::string> keys_;
};

// What a client without a key is told.
Refusal NoKey();

}  // namespace wideload::serve
