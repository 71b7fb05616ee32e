// The requests that `wideload bench serve` sends: rows of a dataset or random ids, as bodies for a
// route of OpenAI's API.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "loadclient/load_run.h"

namespace wideload::apps {

struct ServeDataset {
  std::string name = "random";  // random, custom, embedded
  std::string path;             // of custom
  int64_t num_prompts = 1000;   // rows are taken again from the first when there are fewer
  int64_t random_input_len = 1024, random_prefix_len = 0;  // the prefix is the same for all
  double random_range_ratio = 0;  // lengths are drawn from len * (1 - ratio) to len * (1 + ratio)
  std::optional<int64_t> output_len;  // of all; default: what rows say, 128 for random
  std::string tokenizer;              // file or folder, for random ids
  uint64_t seed = 0;
};

struct RequestForm {
  bool is_chat = false;
  std::string model;
  bool ignore_eos = false;
  double temperature = 0;
  std::optional<double> top_p;
};

// Errors: kInvalid for what does not go together and a dataset that cannot be read; kNotFound.
std::vector<loadclient::LoadRequest> MakeServeRequests(const ServeDataset& dataset,
                                                       const RequestForm& form);

}  // namespace wideload::apps
