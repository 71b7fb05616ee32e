// What the server says of itself: its model, its tokenizer and its engine. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>

#include "serve/served_model.h"

namespace wideload::serve {

// What /v1/models says of a model, as an object.
Json ModelJson(const ServedModel& model, int64_t created);

// What /tokenizer_info answers, in vLLM's words: the special tokens by name (bos_token, eos_token,
// ...) and chat_template, null where there is none. Clients without a tokenizer of their own, as
// lm-eval's "remote" one, read it.
std::string TokenizerInfoJson(const ServedModel& model);

// What /server_info answers: version, model, the layout of the ranks, what the engine takes at a
// time, and the limits of requests.
struct ServerLimits {
  int64_t max_open_requests = 0;
  int64_t max_open_tokens = 0;
  double request_timeout_s = 0;  // 0: none
};
std::string ServerInfoJson(const ServedModel& model, const std::string& version,
                           const ServerLimits& limits);

// The name in a path's last part: %XX is the byte XX.
std::string DecodedName(std::string_view part);

}  // namespace wideload::serve
