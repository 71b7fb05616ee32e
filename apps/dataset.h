// Requests of a benchmark: rows of JSON lines as trtllm-bench writes them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace wideload::apps {

struct DatasetRow {
  std::string task_id;  // as JSON: 7 or "seven"
  std::vector<int32_t> ids;
  int64_t output_tokens = 0;
};

// Rows {"task_id": integer or string, "prompt": text | "input_ids": [ids], "output_tokens": n};
// other keys are ignored, input_ids win. `tokenizer` may be null when every row has input_ids.
// `max_rows` 0: all. Errors: naming file, line, field, found, allowed.
std::vector<DatasetRow> ReadDataset(const std::string& path, const tokenizer::Tokenizer* tokenizer,
                                    int64_t max_rows);

}  // namespace wideload::apps
