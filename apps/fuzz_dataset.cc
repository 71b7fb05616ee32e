// Any bytes as the rows of a benchmark: read or refused.
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "dataset.h"
#include "tokenizer/small_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;
  static const tokenizer::Tokenizer tokenizer = tokenizer::Tokenizer::FromText(
      DumpJson(tokenizer::SmallTokenizerJson({"a b"})), "small.json");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const tokenizer::Tokenizer* given :
       {static_cast<const tokenizer::Tokenizer*>(nullptr), &tokenizer}) {
    try {
      const auto rows =
          apps::ParseDataset(text, "rows.jsonl", given, {.max_rows = 100, .max_tokens = 1000});
      WIDELOAD_CHECK(!rows.empty() && rows.size() <= 100, "{} rows", rows.size());
      for (const apps::DatasetRow& row : rows) {
        WIDELOAD_CHECK(!row.ids.empty() && row.output_tokens >= 0, "row {}", row.task_id);
        for (const int32_t id : row.ids) WIDELOAD_CHECK(id >= 0, "id {}", id);
      }
    } catch (const Error&) {
      // a refusal is an answer
    }
  }
  return 0;
}
