// How token-level routing becomes the iterations of one layer that are planned from and measured.
// Pure; thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "eplb/placement/batch_loads.h"

namespace wideload::eplb {

// One layer's routed tokens: an iteration is [tokens * top_k] expert ids, token by token.
struct LayerTrace {
  int32_t num_experts = 0;
  int32_t top_k = 1;
  std::vector<std::vector<uint16_t>> recorded;
  std::vector<std::vector<uint16_t>> measured;
};

// A whole trace: tasks of documents (or answers) of tokens.
struct RoutingTask {
  std::vector<int64_t> document_tokens;  // add up to the tokens of expert_ids
  std::vector<uint16_t> expert_ids;      // [token, layer, k]
};
struct RoutingTrace {
  int32_t num_layers = 0;
  int32_t top_k = 1;
  int32_t num_experts = 0;
  std::vector<RoutingTask> tasks;
};

// How a trace becomes iterations. An incomplete last iteration is dropped.
struct IterationRule {
  enum class Kind { kTokens, kDecode };
  enum class Record { kHalf, kHalfPerTask, kAlternateAnswers };
  Kind kind = Kind::kTokens;
  int64_t tokens = 4096;      // kTokens: tokens of an iteration
  int64_t decode_step = 1;    // kDecode: iteration i = token i * step of every answer
  int64_t decode_length = 1;  //   that has at least this many tokens; i * step < length
  int64_t answer_stride = 1;  // documents of a task in the order i x stride mod their number
  // kHalf: the first floor(n / 2) iterations are recorded, the others measured. kHalfPerTask: the
  // same within each task. kAlternateAnswers: documents 0, 2, 4, .. of the order are recorded, the
  // others measured, each as a stream of its own.
  Record record = Record::kHalf;
};
// Errors: kInvalid naming the option: sizes below 1, a stride that does not visit every document,
// kDecode with another record than kAlternateAnswers or kHalf; kInvalid when nothing is left to
// record or to measure.
void ValidateIterationRule(const RoutingTrace& trace, const IterationRule& rule);
LayerTrace MakeLayerTrace(const RoutingTrace& trace, const IterationRule& rule, int32_t layer);

// Tokens of each expert in one iteration.
std::vector<double> CountTokens(const LayerTrace& trace, const std::vector<uint16_t>& iteration);
BatchLoads RecordedBatches(const LayerTrace& trace);

}  // namespace wideload::eplb
