// Arbitrary bytes as a tiktoken.model, and behind the lines of a small valid one, with the first
// line as its tokenizer_config.json.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "tokenizer/small_tokenizer.h"
#include "tokenizer/tiktoken.h"

namespace {

using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file

void Use(std::string_view model, const Json& config) {
  try {
    const auto spec = tokenizer::ParseTiktoken(model, "fuzz", JsonFields(config, "config"));
    const tokenizer::Bpe bpe(spec.bpe);
    tokenizer::BpeScratch scratch;
    std::vector<int32_t> ids;
    bpe.Encode(tokenizer::kMixedText, scratch, ids);
    for (const int32_t id : ids)
      WIDELOAD_CHECK(id >= 0 && static_cast<size_t>(id) < spec.vocabulary.size(), "id {}", id);
  } catch (const Error&) {
    // A refusal is a right answer.
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string small = tokenizer::SmallTiktokenModel();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Use(text, Json::object());
  const size_t line = std::min(text.find('\n'), text.size());
  Json config = Json::object();
  try {
    config = ParseJson(text.substr(0, line), "config");
  } catch (const Error&) {
    // a refusal is an answer
  }
  Use(small + std::string(text.substr(line)), config);
  tokenizer::SliceEnds(tokenizer::WithReplacements(text));
  return 0;
}
