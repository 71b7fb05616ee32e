// The first line is a regular expression, the rest the text that it splits, in a way that the size
// tells: every byte of the text is in one piece, whatever the expression; bounds hold.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;             // NOLINT(google-build-using-namespace)
  using namespace wideload::tokenizer;  // NOLINT(google-build-using-namespace)
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t line = std::min(input.find('\n'), input.size());
  const std::string text = WithReplacements(input.substr(std::min(line + 1, size)));
  try {
    const Regex regex(input.substr(0, line), "fuzz");
    RegexScratch scratch;
    constexpr SplitBehavior kKeepingAll[] = {
        SplitBehavior::kIsolated, SplitBehavior::kMergedWithPrevious,
        SplitBehavior::kMergedWithNext, SplitBehavior::kContiguous};
    PreTokenizer pre_tokenizer;
    pre_tokenizer.splits.push_back({.pattern = regex, .behavior = kKeepingAll[size % 4]});
    std::string joined;
    PreTokenize(pre_tokenizer, text, true, scratch, [&](std::string_view piece) {
      WIDELOAD_CHECK(!piece.empty() && IsValidUtf8(piece), "piece {}", piece);
      joined += piece;
    });
    WIDELOAD_CHECK(joined == text, "joined {}", joined);
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
