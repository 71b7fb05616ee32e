// The keys that clients may show, of which hashes alone are kept. Immutable; thread-safe.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "serve/refusal.h"
#include "serve/secrets.h"

namespace wideload::serve {

class ApiKeys {
 public:
  // None: none is asked for.
  ApiKeys() = default;
  // Those of a file, one a line; blank lines and those that begin with # are none. Errors: as
  // ReadFile; kInvalid for a file without keys. Warns of short ones, by line.
  static ApiKeys FromFile(const std::string& path);

  bool empty() const { return hashes_.empty(); }
  // The place among the keys of that in a header "Bearer KEY"; nothing when there is none. Takes a
  // time that depends on the length of what is shown alone.
  std::optional<size_t> Find(const std::string& authorization) const;

 private:
  Hash salt_{};  // of this start
  std::vector<Hash> hashes_;
};

// What a client without a key is told.
Refusal NoKey();

}  // namespace wideload::serve
