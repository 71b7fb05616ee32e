#include "dataset.h"

#include <algorithm>

#include "base/file.h"
#include "base/json.h"
#include "runtime/text_limits.h"

namespace wideload::apps {
namespace {

DatasetRow ReadRow(const JsonFields& fields, const tokenizer::Tokenizer* tokenizer,
                   int64_t max_bytes, bool keeps_text) {
  DatasetRow row;
  const Json& id = fields.Required("task_id");
  if (!id.is_number_integer() && !id.is_string())
    fields.Refuse("task_id", "an integer or a string");
  row.task_id = DumpJson(id);
  row.output_tokens = fields.Int("output_tokens", 0, int64_t{1} << 24);
  if (const Json* ids = fields.Find("input_ids")) {
    if (!ids->is_array() || ids->empty())
      fields.Refuse("input_ids", "a list of token ids, not empty");
    for (const Json& token : *ids) {
      if (!token.is_number_unsigned() || token.get<uint64_t>() > 0x7fffffff)
        fields.Refuse("input_ids", "a list of non-negative integers");
      row.ids.push_back(token.get<int32_t>());
    }
    return row;
  }
  if (keeps_text) {
    row.text = fields.String("prompt");
    if (row.text.empty()) fields.Refuse("prompt", "a text that is not empty");
    return row;
  }
  if (tokenizer == nullptr)
    fields.Refuse("input_ids", "present: the model has no tokenizer.json or tiktoken.model");
  row.ids = tokenizer->PrefixIds();
  const std::string prompt = fields.String("prompt");
  if (static_cast<int64_t>(prompt.size()) > max_bytes)
    fields.Refuse("prompt",
                  fmt::format("at most {} bytes: more cannot fit the context", max_bytes));
  const std::vector<int32_t> ids = tokenizer->Encode(prompt);
  row.ids.insert(row.ids.end(), ids.begin(), ids.end());
  if (row.ids.empty()) fields.Refuse("prompt", "a text of at least one token");
  return row;
}

}  // namespace

std::vector<int32_t> TextIds(const tokenizer::Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < tokenizer.NumIds(); ++id)
    if (tokenizer.HasToken(id) && !tokenizer.IsSpecial(id)) ids.push_back(id);
  if (ids.empty()) Throw(ErrorKind::kInvalid, "the tokenizer has no token but special ones");
  return ids;
}

std::vector<DatasetRow> ReadDataset(const std::string& path, const tokenizer::Tokenizer* tokenizer,
                                    const DatasetLimits& limits) {
  return ParseDataset(ReadFile(path, kMaxTableBytes), path, tokenizer, limits);
}

std::vector<DatasetRow> ParseDataset(std::string_view text, const std::string& source,
                                     const tokenizer::Tokenizer* tokenizer,
                                     const DatasetLimits& limits) {
  const int64_t max_bytes =
      tokenizer == nullptr ? 0 : runtime::MaxTextBytes(*tokenizer, limits.max_tokens);
  std::vector<DatasetRow> rows;
  for (int64_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    if (limits.max_rows > 0 && static_cast<int64_t>(rows.size()) == limits.max_rows) break;
    const std::string place = fmt::format("{} line {}", source, number);
    const Json json = ParseJson(line, place);
    rows.push_back(ReadRow(JsonFields(json, place), tokenizer, max_bytes, limits.keeps_texts));
  }
  if (rows.empty())
    Throw(ErrorKind::kInvalid, "{}: has no rows; at least one request is needed", source);
  return rows;
}

}  // namespace wideload::apps
