#include "dataset.h"

#include <sstream>

#include "base/file.h"
#include "base/json.h"

namespace wideload::apps {
namespace {

DatasetRow ReadRow(const JsonFields& fields, const tokenizer::Tokenizer* tokenizer) {
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
  if (tokenizer == nullptr)
    fields.Refuse("input_ids", "present: the model has no tokenizer.json or tiktoken.model");
  row.ids = tokenizer->PrefixIds();
  const std::vector<int32_t> ids = tokenizer->Encode(fields.String("prompt"));
  row.ids.insert(row.ids.end(), ids.begin(), ids.end());
  if (row.ids.empty()) fields.Refuse("prompt", "a text of at least one token");
  return row;
}

}  // namespace

std::vector<DatasetRow> ReadDataset(const std::string& path, const tokenizer::Tokenizer* tokenizer,
                                    int64_t max_rows) {
  std::istringstream lines(ReadFile(path));
  std::vector<DatasetRow> rows;
  std::string line;
  for (int64_t number = 1; std::getline(lines, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (max_rows > 0 && static_cast<int64_t>(rows.size()) == max_rows) break;
    const std::string source = fmt::format("{} line {}", path, number);
    const Json json = ParseJson(line, source);
    rows.push_back(ReadRow(JsonFields(json, source), tokenizer));
  }
  if (rows.empty())
    Throw(ErrorKind::kInvalid, "{}: has no rows; at least one request is needed", path);
  return rows;
}

}  // namespace wideload::apps
