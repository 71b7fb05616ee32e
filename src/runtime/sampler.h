// Chooses the next token from one row of logits. Pure but for scratch it owns: the choice depends
// on the logits, the parameters, the request's own tokens and (seed, index, position) alone. One
// object per rank; not thread-safe; steady state allocates nothing.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "runtime/request.h"

namespace wideload::runtime {

// A number in [0, 1) that depends on its arguments alone (three rounds of the SplitMix64
// finaliser).
double UniformRandom(uint64_t seed, uint64_t index, uint64_t position);

// A candidate.
struct TokenLogit {
  double logit = 0;
  int32_t id = 0;
};

// Appends the log probability of `token` and the `count` most likely tokens, likeliest first, ties
// by id. logits: [vocab_size]. `scratch` is overwritten.
void FillLogprobs(std::span<const float> logits, int32_t token, int32_t count,
                  std::vector<TokenLogit>& scratch, std::vector<TokenLogprob>& logprobs);

class Sampler {
 public:
  // For rows of so many logits.
  explicit Sampler(int64_t vocab_size);

  // What one choice depends on.
  struct Input {
    std::span<const float> logits;         // [vocab_size]
    std::span<const int32_t> tokens;       // prompt and generated so far
    int64_t prompt_length = 0;             // tokens[prompt_length ..] were generated
    uint64_t index = 0;                    // of the request
    std::span<const TokenBias> bias{};     // added to the logits first
    std::span<const int32_t> forbidden{};  // cannot be chosen now; any ids
    std::span<const uint64_t> allowed{};   // grammar::TokenBits: no others can; empty: all can
  };
  // Returns the token, or -1 when the logits hold a NaN or no finite value. Fills `logprobs` as
  // params.num_logprobs asks, from the logits before biases, penalties and temperature.
  int32_t Sample(const Input& input, const SamplingParams& params,
                 std::vector<TokenLogprob>& logprobs);

 private:
  void ApplyAllowed(std::span<const uint64_t> allowed);
  void ApplyPenalties(const Input& input, const SamplingParams& params);
  void SortHead(double needed);
  int32_t Draw(const SamplingParams& params, double uniform);

  std::vector<float> logits_;                        // after penalties
  std::vector<std::pair<int32_t, int32_t>> counts_;  // per id: times in prompt, times generated
  std::vector<TokenLogit> candidates_;
  std::vector<double> weights_;
};

}  // namespace wideload::runtime
