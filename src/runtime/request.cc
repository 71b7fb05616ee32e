#include "runtime/request.h"

#include <fmt/format.h>

#include <array>

namespace wideload::runtime {

const char* FinishReasonName(FinishReason reason) {
  constexpr std::array<const char*, 6> kNames = {"",          "stop",  "length",
                                                 "cancelled", "error", "deadline"};
  return kNames[static_cast<size_t>(reason)];
}

std::string InvalidField(const SamplingParams& params, int64_t vocab_size) {
  const auto wrong = [](const char* field, auto value, const char* allowed) {
    return fmt::format("{} is {}; allowed: {}", field, value, allowed);
  };
  const auto within = [](double value, double min, double max) {
    return value >= min && value <= max;
  };
  if (!within(params.temperature, 0, 1e6))
    return wrong("temperature", params.temperature, "0 (greedy) to 1000000");
  if (params.top_k < 0) return wrong("top_k", params.top_k, "0 (all) and above");
  if (!(params.top_p > 0 && params.top_p <= 1))
    return wrong("top_p", params.top_p, "above 0, at most 1");
  if (!(params.min_p >= 0 && params.min_p < 1)) return wrong("min_p", params.min_p, "0 to below 1");
  if (!(params.repetition_penalty > 0 && params.repetition_penalty < 1e6))
    return wrong("repetition_penalty", params.repetition_penalty, "above 0, below 1000000");
  if (!within(params.presence_penalty, -2, 2))
    return wrong("presence_penalty", params.presence_penalty, "-2 to 2");
  if (!within(params.frequency_penalty, -2, 2))
    return wrong("frequency_penalty", params.frequency_penalty, "-2 to 2");
  if (params.num_logprobs < -1 || params.num_logprobs > vocab_size)
    return fmt::format("logprobs is {}; allowed: 0 to {} (the vocabulary)", params.num_logprobs,
                       vocab_size);
  return "";
}

}  // namespace wideload::runtime
