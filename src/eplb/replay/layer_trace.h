// How token-level routing becomes the iterations of one layer that are planned from and measured.
// Pure; thread-safe.
#pragma once

#include <cstdint>
#include <iterator>
#include <string>
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

// Which experts the tokens of one kind of text chose, document (or answer) after document.
struct RoutingTask {
  std::vector<int64_t> document_tokens;  // add up to the tokens of expert_ids
  std::vector<uint16_t> expert_ids;      // [token, layer, k]
  std::string name = {};
};
// Which experts each token chose, of all tasks that were recorded.
struct RoutingTrace {
  int32_t num_layers = 0;
  int32_t top_k = 1;
  int32_t num_experts = 0;
  std::vector<RoutingTask> tasks;

  // Tokens of a task of this trace.
  int64_t NumTokens(const RoutingTask& task) const {
    return std::ssize(task.expert_ids) / (int64_t{num_layers} * top_k);
  }
  // The top_k experts that a token of the task chose in a layer.
  const uint16_t* Ids(const RoutingTask& task, int64_t token, int32_t layer) const {
    return task.expert_ids.data() + (token * num_layers + layer) * top_k;
  }
};

// How a trace becomes iterations. An incomplete last iteration is dropped.
struct IterationRule {
  // Tokens in their order, or one token of every answer at a time.
  enum class Kind { kTokens, kDecode };
  // Which part is planned from; see `record`.
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
// One layer's iterations, 0 <= layer < num_layers. Errors: as ValidateIterationRule.
LayerTrace MakeLayerTrace(const RoutingTrace& trace, const IterationRule& rule, int32_t layer);

// Tokens of each expert in one iteration.
std::vector<double> CountTokens(const LayerTrace& trace, const std::vector<uint16_t>& iteration);
// The recorded iterations as policies plan from them.
BatchLoads RecordedBatches(const LayerTrace& trace);

}  // namespace wideload::eplb
