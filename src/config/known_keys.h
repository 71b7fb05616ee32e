// The keys of configuration files: those that set an option (option_table.h), and those of
// TensorRT-LLM's LLM-API options that set none here. Pure.
#pragma once

#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/option_table.h"

namespace wideload::config {

// What this program does with a key.
enum class KeyClass {
  kEffective,    // sets an option
  kNoEffect,     // stands for something that is not there or not chosen here: nothing is lost
  kUnsupported,  // known, but not supported yet: what it asks for does not happen
};

// A key of TensorRT-LLM's that sets no option.
struct KnownKey {
  std::string_view key;  // whole
  KeyClass key_class;
  // Why it has no effect, or, of a key that is not supported, what is done instead.
  std::string_view reason;
  // Values, by commas, with which a key that is not supported asks for nothing that is not there.
  // Null and empty maps always do.
  std::string_view harmless = "";
  std::string_view below = "";  // the keys of the map that it may be, by commas; "*": any
};
// All keys, each once.
std::span<const KnownKey> KnownKeys();

// The key of an option in configuration files: TensorRT-LLM's, else the long name without dashes
// before it and with underscores; "" of an option that a file cannot set.
std::string KeyOf(const OptionRow& row);

// The option that the key sets; null if none does.
const OptionRow* FindOptionOfKey(std::string_view key);
// The entry for the key; null if there is none.
const KnownKey* FindKnownKey(std::string_view key);

// Whether known keys lie below this one.
bool IsSectionOfKeys(std::string_view key);

// What older versions of TensorRT-LLM call a key: the key of today, or "" when the key is none of
// those.
std::string KeyOfOldSpelling(std::string_view key);

// The known key that is nearest to one that is not: that of the option which the command line calls
// so (tp_size), else fewest letters changed, added, left out or
// swapped with their neighbour, also when it stands at the wrong level.
std::string NearestKey(std::string_view key);

// The number of such changes between two words; any number from `limit` on when it is not below
// that.
int EditDistance(std::string_view a, std::string_view b,
                 int limit = std::numeric_limits<int>::max());

}  // namespace wideload::config
