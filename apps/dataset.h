// Requests of a benchmark: rows of JSON lines as trtllm-bench writes them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace wideload::apps {

struct DatasetRow {
  std::string task_id;  // as JSON: 7 or "seven"
  std::vector<int32_t> ids;
  std::string text;  // of limits.keeps_texts, where the row has no ids
  int64_t output_tokens = 0;
};

struct DatasetLimits {
  int64_t max_rows = 0;      // to read; 0: all
  int64_t max_tokens = 0;    // of a prompt: no text is tokenised that must have more
  bool keeps_texts = false;  // texts become no ids: no tokenizer is needed, and max_tokens not used
};

// Rows {"task_id": integer or string, "prompt": text | "input_ids": [ids], "output_tokens": n};
// other keys are ignored, input_ids win. `tokenizer` may be null when every row has input_ids.
// Errors: naming file, line, field, found, allowed.
std::vector<DatasetRow> ReadDataset(const std::string& path, const tokenizer::Tokenizer* tokenizer,
                                    const DatasetLimits& limits);
// The same for the content of a file; `source` is its path for messages.
std::vector<DatasetRow> ParseDataset(std::string_view text, const std::string& source,
                                     const tokenizer::Tokenizer* tokenizer,
                                     const DatasetLimits& limits);

// Tokens that a user's text can be made of, to draw random prompts from. Errors: kInvalid when
// there is none.
std::vector<int32_t> TextIds(const tokenizer::Tokenizer& tokenizer);

}  // namespace wideload::apps
