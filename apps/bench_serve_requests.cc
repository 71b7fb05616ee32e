#include "bench_serve_requests.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>

#include "base/error.h"
#include "base/json.h"
#include "dataset.h"
#include "embedded_model.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

constexpr int64_t kRandomOutputLen = 128;

// The prompts of all domains, a first one of each, a second one of each, ...
std::vector<DatasetRow> EmbeddedRows() {
  std::vector<std::string> paths;
  for (const auto& file : std::filesystem::directory_iterator(EmbeddedModelFolder() + "/prompts"))
    if (file.path().extension() == ".jsonl") paths.push_back(file.path());
  std::ranges::sort(paths);
  std::vector<std::vector<DatasetRow>> domains;
  size_t most = 0;
  for (const std::string& path : paths) {
    domains.push_back(ReadDataset(path, nullptr, {.keeps_texts = true}));
    most = std::max(most, domains.back().size());
  }
  std::vector<DatasetRow> rows;
  for (size_t i = 0; i < most; ++i)
    for (std::vector<DatasetRow>& domain : domains)
      if (i < domain.size()) rows.push_back(std::move(domain[i]));
  return rows;
}

std::vector<DatasetRow> RandomRows(const ServeDataset& dataset,
                                   const tokenizer::Tokenizer& tokenizer) {
  const std::vector<int32_t> allowed = TextIds(tokenizer);
  std::mt19937_64 random(dataset.seed);
  const auto draw_id = [&] {
    return allowed[std::uniform_int_distribution<size_t>(0, allowed.size() - 1)(random)];
  };
  const auto draw_length = [&](int64_t mean) {
    const double spread = static_cast<double>(mean) * dataset.random_range_ratio;
    const auto least = static_cast<int64_t>(std::floor(static_cast<double>(mean) - spread));
    const auto most = static_cast<int64_t>(std::ceil(static_cast<double>(mean) + spread));
    return std::uniform_int_distribution<int64_t>(std::max<int64_t>(least, 1), most)(random);
  };
  std::vector<int32_t> prefix(static_cast<size_t>(dataset.random_prefix_len));
  for (int32_t& id : prefix) id = draw_id();
  std::vector<DatasetRow> rows(static_cast<size_t>(dataset.num_prompts));
  for (DatasetRow& row : rows) {
    row.ids = prefix;
    const int64_t length = draw_length(dataset.random_input_len);
    for (int64_t i = 0; i < length; ++i) row.ids.push_back(draw_id());
    row.output_tokens = draw_length(dataset.output_len.value_or(kRandomOutputLen));
  }
  return rows;
}

tokenizer::Tokenizer OpenTokenizer(const ServeDataset& dataset, const std::string& why) {
  if (dataset.tokenizer.empty())
    Throw(ErrorKind::kInvalid,
          "{} needs --tokenizer: the server names no folder with a tokenizer on this machine", why);
  return tokenizer::Tokenizer::FromFile(dataset.tokenizer);
}

std::vector<DatasetRow> Rows(const ServeDataset& dataset) {
  if (dataset.name == "random")
    return RandomRows(dataset, OpenTokenizer(dataset, "--dataset-name random"));
  if (dataset.name == "embedded") return EmbeddedRows();
  return ReadDataset(dataset.path, nullptr, {.keeps_texts = true});
}

std::string Body(const DatasetRow& row, const RequestForm& form) {
  Json body = {{"model", form.model},
               {"stream", true},
               {"stream_options", {{"include_usage", true}}},
               {"temperature", form.temperature}};
  if (form.is_chat) {
    body["messages"] = Json::array({{{"role", "user"}, {"content", row.text}}});
    body["max_completion_tokens"] = row.output_tokens;
  } else {
    body["prompt"] = row.ids.empty() ? Json(row.text) : Json(row.ids);
    body["max_tokens"] = row.output_tokens;
  }
  if (form.top_p) body["top_p"] = *form.top_p;
  if (form.ignore_eos) body["ignore_eos"] = true;
  return DumpJson(body);
}

}  // namespace

std::vector<loadclient::LoadRequest> MakeServeRequests(const ServeDataset& dataset,
                                                       const RequestForm& form) {
  std::vector<DatasetRow> rows = Rows(dataset);
  if (form.is_chat &&
      std::ranges::any_of(rows, [](const DatasetRow& row) { return row.text.empty(); })) {
    const auto tokenizer = OpenTokenizer(dataset, "a chat with input_ids");
    for (DatasetRow& row : rows)
      if (row.text.empty()) row.text = tokenizer.Decode(row.ids);
  }
  std::vector<loadclient::LoadRequest> requests;
  for (int64_t i = 0; i < dataset.num_prompts; ++i) {
    DatasetRow& row = rows[static_cast<size_t>(i) % rows.size()];
    if (dataset.output_len && dataset.name != "random") row.output_tokens = *dataset.output_len;
    requests.push_back(
        {.body = Body(row, form), .prompt_tokens = static_cast<int64_t>(row.ids.size())});
  }
  return requests;
}

}  // namespace wideload::apps
