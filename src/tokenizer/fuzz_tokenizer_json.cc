// Arbitrary bytes as a tokenizer.json, and as a JSON merge patch of a small valid one.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "tokenizer/small_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace {

using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file

void Use(std::string_view text) {
  try {
    const auto tokenizer = tokenizer::Tokenizer::FromText(text, "fuzz");
    const auto ids = tokenizer.Encode(tokenizer::kMixedText);
    tokenizer.Decode(ids);
    tokenizer.Decode(tokenizer.PrefixIds());
  } catch (const Error&) {
    // A refusal is a right answer.
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Json small = tokenizer::SmallTokenizerJson({"a b", "e r", "1 2"}, {R"(\p{N}{1,3})"});
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Use(text);
  try {
    Json patched = small;
    patched.merge_patch(ParseJson(text, "fuzz"));
    Use(DumpJson(patched));
  } catch (const Error&) {
    // a refusal is an answer
  }
  return 0;
}
