#include "eplb/replay/layer_trace.h"

#include <cstddef>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "eplb/placement/index.h"

namespace wideload::eplb {
namespace {

// A document as a run of tokens within its task.
struct Document {
  const RoutingTask* task;
  int64_t first_token;
  int64_t num_tokens;
};

// A task's documents in the order of the rule.
std::vector<Document> OrderedDocuments(const RoutingTask& task, int64_t stride) {
  std::vector<Document> in_file;
  int64_t token = 0;
  for (const int64_t tokens : task.document_tokens) {
    in_file.push_back({&task, token, tokens});
    token += tokens;
  }
  std::vector<Document> ordered;
  for (size_t i = 0; i < in_file.size(); ++i)
    ordered.push_back(in_file[Index(static_cast<int64_t>(i) * stride) % in_file.size()]);
  return ordered;
}

struct TokenRef {
  const RoutingTask* task;
  int64_t token;
};

std::vector<TokenRef> TokensOf(const std::vector<Document>& documents) {
  std::vector<TokenRef> tokens;
  for (const Document& d : documents)
    for (int64_t t = 0; t < d.num_tokens; ++t) tokens.push_back({d.task, d.first_token + t});
  return tokens;
}

using TokenLists = std::vector<std::vector<TokenRef>>;

TokenLists ChunksOf(const std::vector<TokenRef>& tokens, int64_t size) {
  TokenLists chunks;
  for (size_t begin = 0; begin + Index(size) <= tokens.size(); begin += Index(size))
    chunks.emplace_back(tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                        tokens.begin() + static_cast<std::ptrdiff_t>(begin + Index(size)));
  return chunks;
}

TokenLists IterationsOf(const std::vector<Document>& documents, const IterationRule& rule) {
  if (rule.kind == IterationRule::Kind::kTokens) return ChunksOf(TokensOf(documents), rule.tokens);
  TokenLists iterations;
  for (int64_t t = 0; t < rule.decode_length; t += rule.decode_step) {
    std::vector<TokenRef> tokens;
    for (const Document& d : documents)
      if (d.num_tokens >= rule.decode_length) tokens.push_back({d.task, d.first_token + t});
    if (!tokens.empty()) iterations.push_back(std::move(tokens));
  }
  return iterations;
}

struct SplitTrace {
  TokenLists recorded, measured;
};

void AppendHalves(TokenLists iterations, SplitTrace& out) {
  const size_t half = iterations.size() / 2;
  for (size_t i = 0; i < iterations.size(); ++i)
    (i < half ? out.recorded : out.measured).push_back(std::move(iterations[i]));
}

SplitTrace SplitIterations(const RoutingTrace& trace, const IterationRule& rule) {
  SplitTrace out;
  std::vector<Document> all;
  for (const RoutingTask& task : trace.tasks) {
    const std::vector<Document> documents = OrderedDocuments(task, rule.answer_stride);
    if (rule.record == IterationRule::Record::kHalfPerTask)
      AppendHalves(IterationsOf(documents, rule), out);
    all.insert(all.end(), documents.begin(), documents.end());
  }
  if (rule.record == IterationRule::Record::kHalf) AppendHalves(IterationsOf(all, rule), out);
  if (rule.record != IterationRule::Record::kAlternateAnswers) return out;
  if (rule.kind == IterationRule::Kind::kDecode)
    std::erase_if(all, [&rule](const Document& d) { return d.num_tokens < rule.decode_length; });
  std::vector<Document> streams[2];
  for (size_t i = 0; i < all.size(); ++i) streams[i % 2].push_back(all[i]);
  out.recorded = IterationsOf(streams[0], rule);
  out.measured = IterationsOf(streams[1], rule);
  return out;
}

std::vector<std::vector<uint16_t>> IdsOf(const RoutingTrace& trace, const TokenLists& iterations,
                                         int32_t layer) {
  std::vector<std::vector<uint16_t>> ids;
  for (const std::vector<TokenRef>& tokens : iterations) {
    std::vector<uint16_t>& out = ids.emplace_back();
    out.reserve(tokens.size() * Index(trace.top_k));
    for (const TokenRef& token : tokens) {
      const auto begin =
          token.task->expert_ids.begin() + (token.token * trace.num_layers + layer) * trace.top_k;
      out.insert(out.end(), begin, begin + trace.top_k);
    }
  }
  return ids;
}

}  // namespace

void ValidateIterationRule(const RoutingTrace& trace, const IterationRule& rule) {
  const bool decode = rule.kind == IterationRule::Kind::kDecode;
  if (!decode && rule.tokens < 1)
    Throw(ErrorKind::kInvalid, "iterations: tokens is {}; it must be 1 or more", rule.tokens);
  if (decode && (rule.decode_step < 1 || rule.decode_length < 1))
    Throw(ErrorKind::kInvalid, "iterations: decode step {} and length {}; both must be 1 or more",
          rule.decode_step, rule.decode_length);
  for (const RoutingTask& task : trace.tasks) {
    const auto documents = static_cast<int64_t>(task.document_tokens.size());
    if (rule.answer_stride < 1 || std::gcd(rule.answer_stride, documents) != 1)
      Throw(ErrorKind::kInvalid,
            "answer order: stride {} does not visit each of {} answers once; take a number that "
            "shares no factor with it",
            rule.answer_stride, documents);
  }
  const SplitTrace split = SplitIterations(trace, rule);
  if (split.recorded.empty() || split.measured.empty())
    Throw(ErrorKind::kInvalid,
          "iterations: the trace gives {} to record and {} to measure; both need at least one",
          split.recorded.size(), split.measured.size());
}

LayerTrace MakeLayerTrace(const RoutingTrace& trace, const IterationRule& rule, int32_t layer) {
  const SplitTrace split = SplitIterations(trace, rule);
  return {trace.num_experts, trace.top_k, IdsOf(trace, split.recorded, layer),
          IdsOf(trace, split.measured, layer)};
}

std::vector<double> CountTokens(const LayerTrace& trace, const std::vector<uint16_t>& iteration) {
  std::vector<double> counts(Index(trace.num_experts), 0.0);
  for (const uint16_t expert : iteration) counts[expert] += 1;
  return counts;
}

BatchLoads RecordedBatches(const LayerTrace& trace) {
  BatchLoads scenarios{trace.num_experts, {}, {}};
  for (const std::vector<uint16_t>& iteration : trace.recorded)
    scenarios.Add(CountTokens(trace, iteration));
  return scenarios;
}

}  // namespace wideload::eplb
