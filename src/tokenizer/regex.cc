#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <pcre2.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

constexpr size_t kMaxPatternBytes = 16384;
// Steps that one search may take: linear in the text, as the published patterns are, with room for
// a backtrack over each run of white space.
constexpr size_t kFreeSteps = 10'000;
constexpr size_t kStepsPerByte = 100;
constexpr size_t kMaxSteps = 1'000'000'000;
constexpr uint32_t kHeapKib = 64 * 1024;

constexpr uint32_t kUnicode = PCRE2_UTF | PCRE2_NO_UTF_CHECK;

std::string MessageOf(int code) {
  std::array<PCRE2_UCHAR8, 256> buffer{};
  pcre2_get_error_message_8(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

RegexScratch::RegexScratch()
    : match_data_(pcre2_match_data_create_8(1, nullptr)),
      match_context_(pcre2_match_context_create_8(nullptr)) {
  WIDELOAD_CHECK(match_data_ != nullptr && match_context_ != nullptr, "out of memory");
  pcre2_set_heap_limit_8(match_context_, kHeapKib);
}

RegexScratch::~RegexScratch() {
  pcre2_match_data_free_8(match_data_);
  pcre2_match_context_free_8(match_context_);
}

Regex::Regex(std::string_view pattern, std::string where) : where_(std::move(where)) {
  if (pattern.size() > kMaxPatternBytes)
    Throw(ErrorKind::kUnsupported, "{} has {} bytes; it must have at most {}", where_,
          pattern.size(), kMaxPatternBytes);
  Compile(TranslatePattern(pattern, where_), PCRE2_UCP);
}

Regex Regex::Literal(std::string_view text, std::string where) {
  WIDELOAD_CHECK(!text.empty(), "{}: an empty literal", where);
  Regex regex;
  regex.where_ = std::move(where);
  regex.Compile(text, PCRE2_LITERAL);
  return regex;
}

void Regex::Compile(std::string_view pattern, uint32_t options) {
  const std::unique_ptr<pcre2_compile_context_8, void (*)(pcre2_compile_context_8*)> context(
      pcre2_compile_context_create_8(nullptr), pcre2_compile_context_free_8);
  pcre2_set_newline_8(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit_8(context.get(), 50);
  int code = 0;
  size_t offset = 0;
  pcre2_code_8* compiled =
      pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(pattern.data()), pattern.size(),
                      options | kUnicode, &code, &offset, context.get());
  if (compiled == nullptr)
    Throw(ErrorKind::kCorrupt, "{} does not compile: {} at byte {} of {}", where_, MessageOf(code),
          offset, pattern);
  // Without just-in-time compilation the search is slower and otherwise the same.
  pcre2_jit_compile_8(compiled, PCRE2_JIT_COMPLETE);
  code_ = {compiled, pcre2_code_free_8};
}

bool Regex::FindFrom(std::string_view text, size_t start, RegexScratch& scratch,
                     TextRange& match) const {
  const size_t steps = std::min(kMaxSteps, kFreeSteps + kStepsPerByte * (text.size() - start));
  pcre2_set_match_limit_8(scratch.match_context_, static_cast<uint32_t>(steps));
  pcre2_set_depth_limit_8(scratch.match_context_, static_cast<uint32_t>(steps));
  const auto search = [&](uint32_t options) {
    return pcre2_match_8(code_.get(), reinterpret_cast<PCRE2_SPTR8>(text.data()), text.size(),
                         start, options | PCRE2_NO_UTF_CHECK, scratch.match_data_,
                         scratch.match_context_);
  };
  int code = search(0);
  // The interpreter keeps its backtracking on the heap, within kHeapKib.
  if (code == PCRE2_ERROR_JIT_STACKLIMIT) code = search(PCRE2_NO_JIT);
  if (code == PCRE2_ERROR_NOMATCH) return false;
  if (code < 0)
    Throw(ErrorKind::kResource, "{}: searching a text of {} bytes from byte {} stopped: {}", where_,
          text.size(), start, MessageOf(code));
  const size_t* offsets = pcre2_get_ovector_pointer_8(scratch.match_data_);
  match = {.begin = offsets[0], .end = offsets[1]};
  return true;
}

std::vector<TextRange> Regex::FindAll(std::string_view text, RegexScratch& scratch) const {
  std::vector<TextRange> matches;
  TextRange match;
  for (size_t start = 0; start <= text.size() && FindFrom(text, start, scratch, match);) {
    const bool is_empty = match.begin == match.end;
    const bool touches = !matches.empty() && matches.back().end == match.begin;
    if (!(is_empty && touches)) matches.push_back(match);
    start = match.end;
    if (is_empty) start += start < text.size() ? Utf8At(text, start).length : 1;
  }
  return matches;
}

}  // namespace wideload::tokenizer
