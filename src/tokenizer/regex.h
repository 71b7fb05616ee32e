// Regular expressions of tokenizer.json, which are written for Oniguruma, run by PCRE2 with bounds
// on time and memory. A Regex is immutable and may be used by many threads, each with its own
// RegexScratch.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;

namespace wideload::tokenizer {

// Half-open range of bytes.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};

// What one thread needs to search.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

 private:
  friend class Regex;
  pcre2_real_match_data_8* match_data_;
  pcre2_real_match_context_8* match_context_;
};

class Regex {
 public:
  // Compiles `pattern`. Only syntax that both engines read alike, or that is translated (\s and \S
  // are the property White_Space), is accepted. Errors: kUnsupported for other syntax, kCorrupt for
  // a pattern that does not compile; both name `where` (file and field) and the place.
  Regex(std::string_view pattern, std::string where);
  // Finds exactly `text`, which must not be empty.
  static Regex Literal(std::string_view text, std::string where);

  // All matches in well-formed UTF-8, left to right, not overlapping; an empty match is reported
  // unless it touches the match before it. Errors: kResource, naming `where`, when a search exceeds
  // its bounds, which grow with the text.
  std::vector<TextRange> FindAll(std::string_view text, RegexScratch& scratch) const;

 private:
  Regex() = default;
  void Compile(std::string_view pattern, uint32_t options);
  bool FindFrom(std::string_view text, size_t start, RegexScratch& scratch, TextRange& match) const;

  std::string where_;
  std::shared_ptr<const pcre2_real_code_8> code_;  // shared by copies of this Regex; immutable
};

// `pattern` as PCRE2 must read it to mean what Oniguruma means by it. Errors: as Regex.
std::string TranslatePattern(std::string_view pattern, const std::string& where);

}  // namespace wideload::tokenizer
