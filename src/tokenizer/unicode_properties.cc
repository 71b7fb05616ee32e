#include "tokenizer/unicode_properties.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "tokenizer/unicode_tables.h"

namespace wideload::tokenizer {
namespace {

constexpr size_t kNumCategories = static_cast<size_t>(GeneralCategory::kCn) + 1;

constexpr std::array<std::string_view, kNumCategories> kCategoryNames = {
    "lu", "ll", "lt", "lm", "lo", "mn", "mc", "me", "nd", "nl", "no", "pc", "pd", "ps", "pe",
    "pi", "pf", "po", "sm", "sc", "sk", "so", "zs", "zl", "zp", "cc", "cf", "cs", "co", "cn"};

constexpr std::array<std::pair<std::string_view, char>, 7> kLongNames = {{{"letter", 'l'},
                                                                          {"mark", 'm'},
                                                                          {"number", 'n'},
                                                                          {"punctuation", 'p'},
                                                                          {"symbol", 's'},
                                                                          {"separator", 'z'},
                                                                          {"other", 'c'}}};

constexpr std::array<std::string_view, 28> kScriptNames = {
    "han",      "hiragana", "katakana", "bopomofo", "hangul",  "latin",      "greek",
    "cyrillic", "armenian", "georgian", "hebrew",   "arabic",  "devanagari", "bengali",
    "gujarati", "gurmukhi", "tamil",    "telugu",   "kannada", "malayalam",  "sinhala",
    "thai",     "lao",      "tibetan",  "myanmar",  "khmer",   "mongolian",  "ethiopic"};

// Reads a number of `base`, as far as it goes, and moves `text` behind it. `fallback` for none.
uint32_t TakeNumber(const char*& text, int base, uint32_t fallback) {
  uint32_t value = fallback;
  text = std::from_chars(text, text + std::strlen(text), value, base).ptr;
  return value;
}

// Index of the symbol of a run, A to Z and then a to z; -1 for others.
int IndexOfSymbol(char symbol) {
  if (symbol >= 'A' && symbol <= 'Z') return symbol - 'A';
  return symbol >= 'a' && symbol <= 'z' ? symbol - 'a' + 26 : -1;
}

// The ranges of each symbol of a text of runs.
std::vector<CodePointSet> SetsOfRuns(const char* text, size_t num_symbols) {
  std::vector<std::vector<CodePointSet::Range>> ranges(num_symbols);
  uint32_t first = 0;
  while (*text != '\0') {
    const int index = IndexOfSymbol(*text++);
    const uint32_t length = *text >= '0' && *text <= '9' ? TakeNumber(text, 10, 1) : 1;
    if (index >= 0) ranges.at(static_cast<size_t>(index)).push_back({first, first + length - 1});
    first += length;
  }
  WIDELOAD_CHECK(first == kMaxCodePoint + 1, "the runs end at {}", first);
  return {ranges.begin(), ranges.end()};
}

// One byte for each code point, pages shared.
class ByteTable {
 public:
  void Fill(uint32_t first, uint32_t length, uint8_t value) {
    for (uint32_t c = first; c < first + length; ++c) values_[c] = value;
  }
  void Share() {
    std::map<std::string_view, uint16_t> known;
    const std::string_view all(reinterpret_cast<const char*>(values_.data()), values_.size());
    std::vector<uint8_t> pages;
    for (size_t page = 0; page < page_of_.size(); ++page) {
      const std::string_view content = all.substr(page << 8, 256);
      const auto [at, is_new] = known.try_emplace(content, static_cast<uint16_t>(known.size()));
      page_of_[page] = at->second;
      if (is_new) pages.insert(pages.end(), content.begin(), content.end());
    }
    values_ = std::move(pages);
  }
  uint8_t At(uint32_t c) const { return values_[size_t{page_of_[c >> 8]} << 8 | (c & 0xFF)]; }

 private:
  std::vector<uint8_t> values_ = std::vector<uint8_t>(kMaxCodePoint + 1);
  std::array<uint16_t, (kMaxCodePoint >> 8) + 1> page_of_{};
};

const std::vector<CodePointSet>& CategorySets() {
  static const auto sets = SetsOfRuns(kGeneralCategoryRuns, kNumCategories);
  return sets;
}

const ByteTable& Categories() {
  static const ByteTable table = [] {
    ByteTable result;
    for (size_t i = 0; i < kNumCategories; ++i)
      for (const auto& [first, last] : CategorySets()[i].ranges())
        result.Fill(first, last - first + 1, static_cast<uint8_t>(i));
    result.Share();
    return result;
  }();
  return table;
}

const ByteTable& CombiningClasses() {
  static const ByteTable table = [] {
    ByteTable result;
    const char* text = kCombiningClassRuns;
    for (uint32_t first = 0; *text != '\0'; text += *text == ' ' ? 1 : 0) {
      const uint32_t value = TakeNumber(text, 10, 0);
      ++text;  // *
      const uint32_t length = TakeNumber(text, 10, 0);
      result.Fill(first, length, static_cast<uint8_t>(value));
      first += length;
    }
    result.Share();
    return result;
  }();
  return table;
}

struct Compositions {
  std::unordered_map<uint32_t, Decomposition> decomposition_of;
  std::unordered_map<uint64_t, uint32_t> composite_of;  // first << 32 | second
  std::unordered_set<uint32_t> seconds;                 // of those
};

const Compositions& TheCompositions() {
  static const Compositions all = [] {
    Compositions result;
    const char* text = kCanonicalDecompositions;
    for (; *text != '\0'; text += *text == ' ' ? 1 : 0) {
      const uint32_t code_point = TakeNumber(text, 16, 0);
      ++text;  // =
      Decomposition parts{.first = TakeNumber(text, 16, 0)};
      if (*text == '+') parts.second = TakeNumber(++text, 16, 0);
      const bool is_excluded = *text == '!';
      if (is_excluded) ++text;
      result.decomposition_of[code_point] = parts;
      if (parts.second != 0 && !is_excluded)
        result.composite_of[uint64_t{parts.first} << 32 | parts.second] = code_point;
      if (parts.second != 0 && !is_excluded) result.seconds.insert(parts.second);
    }
    return result;
  }();
  return all;
}

// By name in lower case.
std::map<std::string, CodePointSet> NamedSets() {
  std::map<std::string, CodePointSet> sets;
  for (size_t i = 0; i < kNumCategories; ++i) {
    const std::string name(kCategoryNames[i]);
    CodePointSet& group = sets[name.substr(0, 1)];
    group = group.Or(CategorySets()[i]);
    sets[name] = CategorySets()[i];
  }
  for (const auto& [long_name, letter] : kLongNames)
    sets[std::string(long_name)] = sets[std::string(1, letter)];
  const auto scripts = SetsOfRuns(kScriptRuns, kScriptNames.size());
  for (size_t i = 0; i < scripts.size(); ++i) sets[std::string(kScriptNames[i])] = scripts[i];
  return sets;
}

}  // namespace

GeneralCategory CategoryOf(uint32_t code_point) {
  return static_cast<GeneralCategory>(Categories().At(code_point));
}

const CodePointSet* PropertyNamed(std::string_view name) {
  static const auto sets = NamedSets();
  std::string key;
  for (const char c : name)
    if (c != ' ' && c != '_' && c != '-')
      key += static_cast<char>(c >= 'A' && c <= 'Z' ? c | 32 : c);
  const auto found = sets.find(key);
  return found == sets.end() ? nullptr : &found->second;
}

uint8_t CombiningClassOf(uint32_t code_point) { return CombiningClasses().At(code_point); }

Decomposition DecompositionOf(uint32_t code_point) {
  const auto found = TheCompositions().decomposition_of.find(code_point);
  return found == TheCompositions().decomposition_of.end() ? Decomposition() : found->second;
}

uint32_t CompositeOf(uint32_t first, uint32_t second) {
  const auto found = TheCompositions().composite_of.find(uint64_t{first} << 32 | second);
  return found == TheCompositions().composite_of.end() ? 0 : found->second;
}

bool IsSecondOfComposite(uint32_t code_point) {
  return TheCompositions().seconds.contains(code_point);
}

}  // namespace wideload::tokenizer
