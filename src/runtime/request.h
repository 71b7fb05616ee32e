// What a caller asks of the engine and what comes back: plain values.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grammar/token_grammar.h"

namespace wideload::runtime {

// How the next token is chosen. The order is: repetition, presence and frequency penalties,
// temperature, top-k, top-p, min-p.
struct SamplingParams {
  double temperature = 0;  // 0: the largest logit (ties: lowest id)
  int32_t top_k = 0;       // 0: all
  double top_p = 1;        // (0, 1]
  double min_p = 0;        // [0, 1): least share of the largest probability
  double repetition_penalty =
      1;  // > 0; divides positive and multiplies negative logits of tokens seen (prompt too)
  double presence_penalty = 0;   // [-2, 2]; subtracted once for each token generated before
  double frequency_penalty = 0;  // [-2, 2]; subtracted for each time a token was generated
  uint64_t seed = 0;
  int32_t num_logprobs = -1;  // -1: none; n: the sampled token's log probability and the n largest
};

// Names the first field that is out of range, its value and what is allowed; empty when all are
// valid.
std::string InvalidField(const SamplingParams& params, int64_t vocab_size);

// Added to the logit of one token.
struct TokenBias {
  int32_t id = 0;
  float bias = 0;  // finite
  bool operator==(const TokenBias&) const = default;
};

struct Request {
  std::vector<int32_t> prompt;  // at least one id
  int64_t max_tokens = 16;      // tokens to generate; 0: only compute the prompt
  SamplingParams sampling;
  std::vector<int32_t> eos_ids;       // generation ends after one of these (empty: never)
  int64_t min_tokens = 0;             // eos_ids cannot be chosen before so many have been generated
  std::vector<TokenBias> logit_bias;  // added to the logits before penalties
  uint64_t index = 0;  // the request's own index: random numbers come from (seed, index, position)
  bool prompt_logits = false;  // deliver the logits of every prompt position
  std::string cache_salt;      // requests of different salts share no prefixes
  int32_t priority = 0;        // lower ones go first: Scheduler::kPlansPerPriority
  // What is generated stays within it, and ends where nothing can follow; eos_ids can be chosen
  // where its text may end. Of all ids of the model. Null: none.
  std::shared_ptr<grammar::TokenGrammar> grammar;
  // Without a grammar: the tokens of which the first one generated is to be, where another engine
  // goes on with the request. Empty: all.
  grammar::TokenBits first_allowed;
  // Where it ends by its length, what the cache holds of it stays until Engine::Release.
  bool keeps_cache = false;
};

// Ascending in the order of Submit; never used again.
using RequestId = int64_t;

// The engine itself says all of these but kDeadline.
enum class FinishReason { kNone, kStop, kLength, kCancelled, kError, kDeadline };
// "stop", "length", "cancelled", "error", "deadline"; kNone is "".
const char* FinishReasonName(FinishReason reason);

// A token and the logarithm of its probability.
struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;
};

// What one iteration did for one request.
struct Event {
  RequestId id = -1;
  int32_t token = -1;  // the token generated, or -1
  FinishReason finish = FinishReason::kNone;
  std::string error;  // with kError: why
  std::vector<TokenLogprob>
      logprobs;                   // as num_logprobs asks: the sampled token first, then the largest
  int64_t num_cached_tokens = 0;  // of its prompt, that were not computed for it
};

}  // namespace wideload::runtime
