#include "eplb_traces.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "eplb/replay/routing_sampler.h"

namespace wideload::apps {
namespace {

constexpr int32_t kTopK = 8;
constexpr int64_t kTokensPerRank = 128;
constexpr double kWobble = 0.1;
constexpr int32_t kRecorded = 20;
constexpr int32_t kMeasured = 100;
constexpr int64_t kMaxChoices = int64_t{1} << 28;  // of an iteration and layer: 512 MiB of ids
constexpr const char* kIterations = "tokens:4096";

// "PREFIX:a[:b]" -> {a, b}. Errors: kInvalid naming the flag.
std::vector<int64_t> NumbersAfter(const std::string& text, const std::string& prefix, size_t count,
                                  const std::string& flag) {
  std::vector<int64_t> numbers;
  const std::string form = prefix + (count == 2 ? ":STEP:LENGTH" : ":N");
  size_t at = prefix.size();
  while (at < text.size() && text[at] == ':') {
    size_t end = at + 1;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9' && end - at <= 12) ++end;
    if (end == at + 1) break;
    numbers.push_back(std::stoll(text.substr(at + 1, end - at - 1)));
    at = end;
  }
  if (!text.starts_with(prefix) || at != text.size() || numbers.size() != count)
    Throw(ErrorKind::kInvalid, "{} is \"{}\"; it must be {}", flag, text, form);
  return numbers;
}

eplb::IterationRule RuleOf(const TraceFlags& flags) {
  eplb::IterationRule rule;
  const std::string iterations = flags.iterations.empty() ? kIterations : flags.iterations;
  if (iterations.starts_with("decode")) {
    rule.kind = eplb::IterationRule::Kind::kDecode;
    const auto numbers = NumbersAfter(iterations, "decode", 2, "--iterations");
    rule.decode_step = numbers[0];
    rule.decode_length = numbers[1];
  } else {
    rule.tokens = NumbersAfter(iterations, "tokens", 1, "--iterations")[0];
  }
  if (!flags.answer_order.empty() && flags.answer_order != "file")
    rule.answer_stride = NumbersAfter(flags.answer_order, "stride", 1, "--answer_order")[0];
  using Record = eplb::IterationRule::Record;
  if (flags.record.empty() || flags.record == "half")
    rule.record = Record::kHalf;
  else if (flags.record == "half_per_task")
    rule.record = Record::kHalfPerTask;
  else if (flags.record == "alternate_answers")
    rule.record = Record::kAlternateAnswers;
  else
    Throw(ErrorKind::kInvalid,
          "--record is \"{}\"; allowed: half, half_per_task, alternate_answers", flags.record);
  return rule;
}

void CheckSource(const TraceFlags& flags) {
  const int sources =
      !flags.routing.empty() + !flags.loads.empty() + !flags.statistics.path.empty();
  if (sources != 1)
    Throw(ErrorKind::kInvalid,
          "found {} of --routing, --loads and --expert_statistic_path; exactly one is allowed",
          sources);
  const bool of_routing = flags.num_experts != 0 || !flags.iterations.empty() ||
                          !flags.answer_order.empty() || !flags.record.empty();
  if (of_routing && flags.routing.empty())
    Throw(ErrorKind::kInvalid,
          "--num_experts, --iterations, --answer_order and --record need --routing");
  const bool of_loads =
      flags.tokens_per_rank != 0 || flags.wobble >= 0 || flags.recorded != 0 || flags.measured != 0;
  if (of_loads && flags.loads.empty())
    Throw(ErrorKind::kInvalid,
          "--tokens_per_rank, --wobble, --recorded and --measured need --loads");
  if (flags.statistics.HasWindow() && flags.statistics.path.empty())
    Throw(ErrorKind::kInvalid, "--iter_start and --iter_stop need --expert_statistic_path");
  if (flags.statistics.eplb_config && !flags.routing.empty())
    Throw(ErrorKind::kInvalid, "--eplb_config needs --expert_statistic_path or --loads");
  if (flags.loads.empty() && !flags.phase.empty())
    Throw(ErrorKind::kInvalid, "--phase needs --loads");
}

template <class T>
T Given(T value, T fallback) {
  return value == T{} ? fallback : value;
}

}  // namespace

void AddTraceFlags(Command command, TraceFlags& flags) {
  command.Add("--routing", flags.routing, "safetensors file of expert ids per token, layer and k");
  command
      .Add("--num-experts", flags.num_experts,
           "with --routing: experts (default: one more than the largest id)")
      .Positive();
  command.Add("--iterations", flags.iterations,
              fmt::format("with --routing: tokens:N, N tokens each, or decode:STEP:LENGTH, "
                          "token 0, STEP, 2 x STEP.. of every answer of at least LENGTH "
                          "tokens (default: {})",
                          kIterations));
  command.Add("--answer-order", flags.answer_order,
              "with --routing: file (default), or stride:K, answers i x K mod their number");
  command.Add("--record", flags.record,
              "with --routing, what plans are made from: half (default), half_per_task, "
              "alternate_answers; the others are measured");
  command.Add("--loads", flags.loads,
              "recorded loads, as of plan: their batches are replayed; of a table without batches "
              "tokens are drawn");
  command.Add("--phase", flags.phase, "batches of --loads to take: prefill, decode, mixed");
  command
      .Add("--tokens-per-rank", flags.tokens_per_rank,
           fmt::format("with --loads without batches: tokens of a rank and iteration (default: {})",
                       kTokensPerRank))
      .Positive();
  command
      .Add("--wobble", flags.wobble,
           fmt::format("with --loads: sigma of the log-normal factor on every expert's share "
                       "in an iteration (default: {})",
                       kWobble))
      .NonNegative();
  command
      .Add("--recorded", flags.recorded,
           fmt::format("with --loads: iterations to plan from (default: {})", kRecorded))
      .Positive();
  command
      .Add("--measured", flags.measured,
           fmt::format("with --loads: iterations to measure (default: {})", kMeasured))
      .Positive();
  command
      .Add("--top-k", flags.top_k,
           fmt::format("with --loads: experts per token (default: {}); the other sources tell "
                       "theirs",
                       kTopK))
      .Positive();
  AddStatisticsFlags(command, flags.statistics);
  command.Add("--layers", flags.layers, "layers of the source to take, like 3-60");
}

LayerTraces::LayerTraces(const TraceFlags& flags, int32_t ep_size, uint64_t seed) : seed_(seed) {
  CheckSource(flags);
  if (!flags.routing.empty())
    TakeRouting(flags);
  else if (!flags.loads.empty())
    TakeLoads(flags, ep_size);
  else
    TakeFolder(flags);
  if (flags.top_k != 0 && flags.top_k != top_k_)
    Throw(ErrorKind::kInvalid, "--top_k is {}; the source has {} experts per token", flags.top_k,
          top_k_);
  if (flags.layers.empty()) return;
  const std::vector<int32_t> wanted = ParseLayers(flags.layers);
  std::vector<int32_t> rows;
  for (const int32_t layer : wanted) {
    const auto found = std::find(layers_.begin(), layers_.end(), layer);
    if (found == layers_.end())
      Throw(ErrorKind::kInvalid, "--layers {} names layer {}; layers with load: {}", flags.layers,
            layer, fmt::join(layers_, ", "));
    rows.push_back(rows_[static_cast<size_t>(found - layers_.begin())]);
  }
  layers_ = wanted;
  rows_ = std::move(rows);
}

void LayerTraces::TakeRouting(const TraceFlags& flags) {
  rule_ = RuleOf(flags);
  routing_ = statistics::ReadRouting(flags.routing, flags.num_experts);
  eplb::ValidateIterationRule(routing_, rule_);
  num_experts_ = routing_.num_experts;
  top_k_ = routing_.top_k;
  for (int32_t layer = 0; layer < routing_.num_layers; ++layer) {
    layers_.push_back(layer);
    rows_.push_back(layer);
  }
}

void LayerTraces::TakeLoads(const TraceFlags& flags, int32_t ep_size) {
  const formats::Recording recording = ReadFlaggedRecording(
      {.statistics = flags.statistics, .loads = flags.loads, .phase = flags.phase});
  if (recording.loads.batches.empty()) return TakeTable(flags, recording.loads, ep_size);
  if (flags.tokens_per_rank != 0 || flags.wobble >= 0 || flags.recorded != 0 || flags.measured != 0)
    Throw(ErrorKind::kInvalid,
          "--tokens_per_rank, --wobble, --recorded and --measured are for --loads without batches; "
          "{} has {}",
          flags.loads, recording.num_batches());
  statistics_ = formats::StatisticsOf(recording, recording.loads);
  if (recording.top_k == 0) statistics_.experts_per_token = Given(flags.top_k, 1);
  TakeStatistics(flags.loads);
}

void LayerTraces::TakeTable(const TraceFlags& flags, const statistics::LoadTable& table,
                            int32_t ep_size) {
  table_ = table;
  num_experts_ = table_.num_experts;
  top_k_ = Given(flags.top_k, kTopK);
  tokens_per_iteration_ = Given(flags.tokens_per_rank, kTokensPerRank) * ep_size;
  wobble_ = flags.wobble < 0 ? kWobble : flags.wobble;
  recorded_ = Given(flags.recorded, kRecorded);
  measured_ = Given(flags.measured, kMeasured);
  for (const auto& [layer, loads] : table_.layers)
    (eplb::HasLoad(loads) ? layers_ : without_load_).push_back(layer);
  for (size_t i = 0; i < layers_.size(); ++i) rows_.push_back(static_cast<int32_t>(i));
  if (layers_.empty()) Throw(ErrorKind::kInvalid, "{} has no layer with load", flags.loads);
}

void LayerTraces::TakeFolder(const TraceFlags& flags) {
  statistics_ = ReadFolder(flags.statistics, true, flags.num_experts).experts;
  TakeStatistics(flags.statistics.path);
}

// The first half of the iterations is recorded, the others are measured; a layer needs load in
// both.
void LayerTraces::TakeStatistics(const std::string& source) {
  num_experts_ = statistics_.num_experts;
  top_k_ = statistics_.experts_per_token;
  if (statistics_.num_iterations < 2)
    Throw(ErrorKind::kInvalid,
          "{} has {} iteration; at least 2 are needed, one to plan from and one to measure", source,
          statistics_.num_iterations);
  const int64_t half = statistics_.num_iterations / 2;
  for (size_t l = 0; l < statistics_.num_layers(); ++l) {
    bool has_load[2] = {false, false};
    for (int64_t i = 0; i < statistics_.num_iterations; ++i) {
      int64_t choices = 0;
      for (const int64_t count : statistics_.Row(i, l, 0))
        choices = std::min(kMaxChoices + 1, choices + std::min(kMaxChoices + 1, count));
      if (choices > kMaxChoices)
        Throw(ErrorKind::kResource,
              "{}: iteration {} of layer {} has more than {} routed tokens; fewer are supported",
              source, statistics_.iter_start + i, statistics_.layers[l], kMaxChoices);
      has_load[i < half] |= choices > 0;
    }
    const bool usable = has_load[0] && has_load[1];
    (usable ? layers_ : without_load_).push_back(statistics_.layers[l]);
    if (usable) rows_.push_back(static_cast<int32_t>(l));
  }
  if (layers_.empty())
    Throw(ErrorKind::kInvalid, "{} has no layer with load in both halves of its iterations",
          source);
}

eplb::LayerTrace LayerTraces::Make(size_t index) const {
  if (!routing_.tasks.empty()) return eplb::MakeLayerTrace(routing_, rule_, rows_[index]);
  return table_.layers.empty() ? OfCounts(index) : Draw(index);
}

eplb::LayerTrace LayerTraces::Draw(size_t index) const {
  eplb::LayerTrace trace{num_experts_, top_k_, {}, {}};
  eplb::RoutingSampler sampler(table_.layers.at(layers_[index]), top_k_,
                               seed_ * 1000003 + static_cast<uint64_t>(rows_[index]));
  for (int32_t i = 0; i < recorded_ + measured_; ++i)
    (i < recorded_ ? trace.recorded : trace.measured)
        .push_back(sampler.Sample(tokens_per_iteration_, wobble_));
  return trace;
}

// Counts as ids, expert after expert: enough for splits that look at counts alone.
eplb::LayerTrace LayerTraces::OfCounts(size_t index) const {
  eplb::LayerTrace trace{num_experts_, top_k_, {}, {}};
  for (int64_t i = 0; i < statistics_.num_iterations; ++i) {
    std::vector<uint16_t> ids;
    uint16_t expert = 0;
    for (const int64_t count : statistics_.Row(i, static_cast<size_t>(rows_[index]), 0))
      ids.insert(ids.end(), static_cast<size_t>(count), expert++);
    (i < statistics_.num_iterations / 2 ? trace.recorded : trace.measured)
        .push_back(std::move(ids));
  }
  return trace;
}

}  // namespace wideload::apps
