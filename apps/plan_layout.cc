// `wideload plan-layout`: which layouts of so many ranks hold a model, what each takes and sends,
// and which one to take.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/memory_plan.h"
#include "commands.h"
#include "embedded_model.h"
#include "engine_flags.h"
#include "kv/block_classes.h"
#include "kv/paged_cache.h"
#include "model/registry.h"
#include "model/sharded_model.h"
#include "runtime/start/weights.h"

namespace wideload::apps {
namespace {

constexpr int32_t kMaxRanks = 4096;
constexpr int64_t kMaxConcurrency = 1 << 24;
constexpr int64_t kContext = 8192;  // where nothing is said

struct PlanLayoutFlags {
  std::string folder;
  int32_t num_ranks = 1;
  std::string memory_per_rank;
  int32_t ranks_per_host = 0;  // 0: all
  int64_t context = 0;         // 0: kContext
  int64_t concurrency = 256;
  bool json = false;

  void Run() const;
};

// What ranks send each other.
struct Traffic {
  int64_t messages = 0;  // of a rank in an iteration
  double bytes = 0;      // of a token, in all layers
};

struct Candidate {
  parallel::Layout layout;
  std::string refusal;                        // why the engine would not run it; empty: it would
  std::vector<checkpoint::MemoryPart> parts;  // of a host
  uint64_t bytes_per_rank = 0;
  bool fits = false;
  Traffic traffic;
};

// What is asked, read.
struct Question {
  model::ModelReading model;
  bool has_weights = false;
  int32_t num_ranks = 1;
  int32_t ranks_here = 1;
  uint64_t memory_per_rank = 0;
  int64_t context = 0;
  int64_t concurrency = 0;
  compute::KernelSet kernels = compute::AutoKernelSet();

  runtime::RankPlaces PlacesOf(const parallel::Layout& layout) const {
    return {.layout = layout, .num_ranks_here = ranks_here, .are_processes = true};
  }
};

runtime::EngineOptions OptionsOf(const Question& question, const parallel::Layout& layout) {
  const auto experts = static_cast<int32_t>(question.model.spec.moe.num_experts);
  runtime::EngineOptions options;
  options.kernels = question.kernels;
  options.layout = layout;
  options.num_micro_batches = layout.pp;
  const int64_t parts = int64_t{layout.dp} * layout.pp;  // of the requests
  options.max_batch_size = (question.concurrency + parts - 1) / parts;
  options.max_seq_len = question.context;
  options.num_kv_blocks = options.max_batch_size * kv::BlocksFor(question.context, layout.cp);
  options.num_slots = (experts + layout.moe_ep - 1) / layout.moe_ep * layout.moe_ep;
  return options;
}

// What hosts load, measured once for all that keep the same: many layouts differ in how their
// requests are spread alone.
class Weights {
 public:
  explicit Weights(checkpoint::Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  const runtime::ModelBytes& Measure(const model::ModelSpec& spec,
                                     const model::LoadOptions& options,
                                     const parallel::Layout& layout) {
    const parallel::Shard layers = options.layers.value_or(parallel::Shard{});
    const Key key(layout.tp, options.shards.kept, layout.moe_tp, options.expert_parts.kept,
                  layers.begin, layers.end);
    const auto found = measured_.find(key);
    if (found != measured_.end()) return found->second;
    return measured_.emplace(key, runtime::MeasureWeights(checkpoint_, spec, options))
        .first->second;
  }

 private:
  using Key =
      std::tuple<int32_t, std::vector<int32_t>, int32_t, std::vector<int32_t>, int64_t, int64_t>;
  checkpoint::Checkpoint& checkpoint_;
  std::map<Key, runtime::ModelBytes> measured_;
};

// Of the host whose first rank is this one.
runtime::ModelBytes BytesOf(const Question& question, const parallel::Layout& layout,
                            int32_t first_rank, Weights& weights) {
  const int32_t end_rank = std::min(first_rank + question.ranks_here, question.num_ranks);
  model::LoadOptions options{.kernels = question.kernels, .mode = model::LoadMode::kMeasure};
  options.shards = model::AllShards(layout.tp);
  options.expert_parts = model::AllParts(layout.moe_tp);
  const auto is_elsewhere = [&](auto member) {
    return [&, member](int32_t place) {
      for (int32_t rank = first_rank; rank < end_rank; ++rank)
        if (parallel::CoordinatesOf(layout, rank).*member == place) return false;
      return true;
    };
  };
  std::erase_if(options.shards.kept, is_elsewhere(&parallel::Coordinates::tp));
  std::erase_if(options.expert_parts.kept, is_elsewhere(&parallel::Coordinates::moe_tp));
  const auto layers = [&](int32_t rank) {
    return parallel::StageLayers(question.model.spec.num_layers(), layout.pp, {},
                                 rank / layout.stage());
  };
  options.layers = {layers(first_rank).begin, layers(end_rank - 1).end};
  if (!question.has_weights)
    options.assumed = {.quantization = question.model.config.quantization,
                       .dtype = question.model.config.dtype};
  return weights.Measure(question.model.spec, options, layout);
}

// Of the host that has most.
runtime::ModelBytes MostBytes(const Question& question, const parallel::Layout& layout,
                              Weights& weights) {
  runtime::ModelBytes most = BytesOf(question, layout, 0, weights);
  if (layout.pp == 1) return most;
  for (int32_t rank = question.ranks_here; rank < question.num_ranks; rank += question.ranks_here) {
    runtime::ModelBytes bytes = BytesOf(question, layout, rank, weights);
    if (bytes.weights > most.weights) most = std::move(bytes);
  }
  return most;
}

// Rows that the ranks of a group show each other: of a row of n bytes each has all but its own.
struct Gathers {
  int32_t ranks = 1;
  Traffic traffic;

  void Add(int64_t bytes) {
    traffic.messages += ranks - 1;
    traffic.bytes += static_cast<double>(bytes) * (ranks - 1);
  }
};

// Experts chosen with equal probability, requests on all groups. Messages of a stage are its share
// of those of all layers.
Traffic TrafficOf(const Question& question, const parallel::Layout& layout) {
  const model::ModelSpec& spec = question.model.spec;
  const int64_t element = DTypeBytes(compute::PrecisionOf(question.kernels).activations);
  const int64_t sum_bytes = spec.hidden * DTypeBytes(DType::kF32);
  Gathers tensor{.ranks = layout.tp};
  Gathers context{.ranks = layout.cp};
  Gathers parts{.ranks = layout.moe_tp};
  Traffic exchange;
  const double top_k = static_cast<double>(spec.moe.top_k());
  const double ep = layout.moe_ep;
  const double row_copies = ep * (1 - std::pow(1 - 1 / ep, top_k)) * layout.moe_tp;
  const double elsewhere = 1 - 1.0 / layout.stage();
  for (const model::LayerSpec& layer : spec.layers) {
    const auto* const gqa = std::get_if<model::GqaSpec>(&layer.attention);
    const auto* const mla = std::get_if<model::MlaSpec>(&layer.attention);
    const model::ContextRow row = model::ContextRowOf(layer);
    context.Add(row.asked * DTypeBytes(DType::kF32));
    context.Add(row.answered * DTypeBytes(DType::kF32));
    tensor.Add(element *
               (gqa != nullptr ? gqa->q_heads * gqa->head_dim : mla->heads * mla->value_dim));
    tensor.Add(sum_bytes);
    if (layer.moe_index < 0) {
      tensor.Add(element * layer.dense_width);
      tensor.Add(sum_bytes);
      continue;
    }
    tensor.Add(sum_bytes);
    parts.Add(element * spec.moe.top_k() * spec.experts.width);
    exchange.messages += int64_t{3} * (layout.stage() - 1);  // counts, rows, results
    exchange.bytes += elsewhere * static_cast<double>(spec.hidden * element) * (row_copies + top_k);
  }
  tensor.Add(spec.vocab_size * DTypeBytes(DType::kF32));
  const int64_t messages = tensor.traffic.messages + context.traffic.messages +
                           parts.traffic.messages + exchange.messages;
  const int32_t handovers = layout.pp - 1;  // each rank of a stage hands over all rows of its group
  return {.messages = (messages + layout.pp - 1) / layout.pp + std::min(handovers, 1),
          .bytes = tensor.traffic.bytes + context.traffic.bytes + parts.traffic.bytes +
                   exchange.bytes + static_cast<double>(sum_bytes * layout.tp * handovers)};
}

Candidate Judge(const Question& question, const parallel::Layout& layout, Weights& weights) {
  Candidate candidate{.layout = layout};
  const model::ModelSpec& spec = question.model.spec;
  try {
    runtime::CheckLayout(spec, layout);
  } catch (const Error& error) {
    candidate.refusal = error.what();
    return candidate;
  }
  const runtime::EngineOptions options = OptionsOf(question, layout);
  if (options.num_kv_blocks >= kv::kMaxBlocks) {
    candidate.refusal = fmt::format(
        "its groups would have {} KV blocks each; fewer than {} are "
        "allowed",
        options.num_kv_blocks, kv::kMaxBlocks);
    return candidate;
  }
  candidate.parts = runtime::MemoryParts(spec, MostBytes(question, layout, weights),
                                         question.PlacesOf(layout), options);
  const auto ranks_here = static_cast<uint64_t>(question.ranks_here);
  candidate.bytes_per_rank = (TotalBytes(candidate.parts) + ranks_here - 1) / ranks_here;
  candidate.fits = candidate.bytes_per_rank <= question.memory_per_rank;
  candidate.traffic = TrafficOf(question, layout);
  return candidate;
}

std::vector<int32_t> DivisorsOf(int32_t number) {
  std::vector<int32_t> divisors;
  for (int32_t divisor = 1; divisor <= number; ++divisor)
    if (number % divisor == 0) divisors.push_back(divisor);
  return divisors;
}

// Appends the layouts of so many stages.
void JudgeStages(const Question& question, int32_t pp, Weights& weights,
                 std::vector<Candidate>& candidates) {
  const int32_t ranks = question.num_ranks / pp;
  const std::vector<int32_t> divisors = DivisorsOf(ranks);
  for (const int32_t tp : divisors)
    for (const int32_t cp : {1, 2, 4, 8})
      for (const int32_t moe_tp : divisors) {
        const bool has_parts = moe_tp > 1 && question.model.spec.moe.num_experts == 0;
        if (ranks % (tp * cp) != 0 || has_parts) continue;
        const parallel::Layout layout{.tp = tp,
                                      .dp = ranks / (tp * cp),
                                      .cp = cp,
                                      .pp = pp,
                                      .moe_tp = moe_tp,
                                      .moe_ep = ranks / moe_tp};
        candidates.push_back(Judge(question, layout, weights));
      }
}

std::vector<Candidate> JudgeAll(const Question& question, Weights& weights) {
  std::vector<Candidate> candidates;
  for (const int32_t pp : DivisorsOf(question.num_ranks))
    if (pp <= question.model.spec.num_layers()) JudgeStages(question, pp, weights, candidates);
  return candidates;
}

struct Choice {
  const Candidate* candidate = nullptr;  // null: nothing fits
  std::string reason;
};

// Of a rank: the part of that name; of "other" all that are not named here.
uint64_t PartOf(const Question& question, const Candidate& candidate, std::string_view name) {
  uint64_t bytes = 0;
  for (const checkpoint::MemoryPart& part : candidate.parts) {
    const bool is_named =
        part.name == "weights" || part.name == "KV cache" || part.name == "exchange";
    if (part.name == name || (name == "other" && !is_named)) bytes += part.bytes;
  }
  return bytes / static_cast<uint64_t>(question.ranks_here);
}

bool HasWork(const Question& question, const Candidate& candidate) {
  return candidate.refusal.empty() &&
         int64_t{candidate.layout.dp} * candidate.layout.pp <= question.concurrency;
}

// What the smallest of the layouts takes that are `less` than the chosen one and so do not fit.
template <class Less>
std::string SmallestOf(const Question& question, const std::vector<Candidate>& candidates,
                       const Less& less) {
  const Candidate* smallest = nullptr;
  for (const Candidate& candidate : candidates)
    if (HasWork(question, candidate) && less(candidate.layout) &&
        (smallest == nullptr || candidate.bytes_per_rank < smallest->bytes_per_rank))
      smallest = &candidate;
  if (smallest == nullptr) return "the engine would run none";
  std::pair<uint64_t, std::string_view> largest;
  for (const std::string_view name : {"weights", "KV cache", "exchange", "other"})
    largest = std::max(largest, {PartOf(question, *smallest, name), name});
  return fmt::format("the smallest takes {} per rank of {} ({} {})",
                     FormatBytes(smallest->bytes_per_rank), FormatBytes(question.memory_per_rank),
                     largest.second, FormatBytes(largest.first));
}

// A group without a request computes nothing in attention, and stages make no request faster: of
// the rest the fewest stages, then the fewest ranks that share a context, which is for contexts
// that do not fit otherwise, then the one that sends least; of equals the one that takes least.
Choice Choose(const Question& question, const std::vector<Candidate>& candidates) {
  const Candidate* best = nullptr;
  const Candidate* smallest = nullptr;
  for (const Candidate& candidate : candidates) {
    if (!candidate.refusal.empty()) continue;
    if (smallest == nullptr || candidate.bytes_per_rank < smallest->bytes_per_rank)
      smallest = &candidate;
    if (!candidate.fits || !HasWork(question, candidate)) continue;
    const auto rank = [](const Candidate& c) {
      return std::tuple(c.layout.pp, c.layout.cp, c.traffic.bytes, c.bytes_per_rank);
    };
    if (best == nullptr || rank(candidate) < rank(*best)) best = &candidate;
  }
  if (best != nullptr) {
    const parallel::Layout& chosen = best->layout;
    std::string reason =
        "it fits, has a request for every group, and of all such layouts that are alike in stages "
        "and ranks of a context sends the fewest bytes per token";
    if (chosen.pp > 1)
      reason += "; with fewer stages " +
                SmallestOf(question, candidates,
                           [&](const parallel::Layout& l) { return l.pp < chosen.pp; });
    if (chosen.cp > 1)
      reason += "; with contexts on fewer ranks " +
                SmallestOf(question, candidates, [&](const parallel::Layout& l) {
                  return l.pp <= chosen.pp && l.cp < chosen.cp;
                });
    return {best, reason};
  }
  if (smallest == nullptr) return {nullptr, "the engine would run none of them"};
  return {nullptr,
          fmt::format("none fits with a request for every group; the smallest takes {} per "
                      "rank of {}: {}",
                      FormatBytes(smallest->bytes_per_rank), FormatBytes(question.memory_per_rank),
                      checkpoint::DescribeMemory(smallest->parts))};
}

std::string FlagsOf(const parallel::Layout& layout) {
  return fmt::format("--tp {}{} --dp {} --moe-tp {} --ep {}{}", layout.tp,
                     layout.cp > 1 ? fmt::format(" --cp {}", layout.cp) : "", layout.dp,
                     layout.moe_tp, layout.moe_ep,
                     layout.pp > 1 ? fmt::format(" --pp {}", layout.pp) : "");
}

Json ToJson(const Question& question, const std::vector<Candidate>& candidates,
            const Choice& choice) {
  Json list = Json::array();
  for (const Candidate& candidate : candidates) {
    const parallel::Layout& layout = candidate.layout;
    Json entry = {{"flags", FlagsOf(layout)},
                  {"tp", layout.tp},
                  {"cp", layout.cp},
                  {"dp", layout.dp},
                  {"moe_tp", layout.moe_tp},
                  {"ep", layout.moe_ep},
                  {"pp", layout.pp},
                  {"fits", candidate.fits},
                  {"refusal", candidate.refusal.empty() ? Json() : Json(candidate.refusal)}};
    if (candidate.refusal.empty())
      entry.update({{"bytes_per_rank",
                     {{"weights", PartOf(question, candidate, "weights")},
                      {"kv_cache", PartOf(question, candidate, "KV cache")},
                      {"exchange", PartOf(question, candidate, "exchange")},
                      {"other", PartOf(question, candidate, "other")},
                      {"total", candidate.bytes_per_rank}}},
                    {"messages_per_iteration", candidate.traffic.messages},
                    {"bytes_per_token", std::llround(candidate.traffic.bytes)}});
    list.push_back(entry);
  }
  return {{"ranks", question.num_ranks},
          {"ranks_per_host", question.ranks_here},
          {"memory_per_rank", question.memory_per_rank},
          {"context", question.context},
          {"concurrency", question.concurrency},
          {"are_weights_measured", question.has_weights},
          {"layouts", list},
          {"recommended",
           choice.candidate == nullptr ? Json() : Json(FlagsOf(choice.candidate->layout))},
          {"reason", choice.reason}};
}

std::string ToText(const Question& question, const std::vector<Candidate>& candidates,
                   const Choice& choice) {
  std::string text = fmt::format("{:<40} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9} {:>11}\n",
                                 "layout, bytes per rank", "weights", "KV cache", "exchange",
                                 "other", "total", "messages", "bytes/token");
  for (const Candidate& candidate : candidates) {
    if (!candidate.refusal.empty()) {
      text += fmt::format("{:<40} {}\n", FlagsOf(candidate.layout), candidate.refusal);
      continue;
    }
    const auto part = [&](std::string_view name) {
      return FormatBytes(PartOf(question, candidate, name));
    };
    text += fmt::format("{:<40} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9} {:>11}{}\n",
                        FlagsOf(candidate.layout), part("weights"), part("KV cache"),
                        part("exchange"), part("other"), FormatBytes(candidate.bytes_per_rank),
                        candidate.traffic.messages,
                        FormatBytes(static_cast<uint64_t>(candidate.traffic.bytes)),
                        candidate.fits ? "" : "  does not fit");
  }
  if (!question.has_weights)
    text += "\nweights as config.json says: there are none in the folder\n";
  if (choice.candidate == nullptr) return text + "\n" + choice.reason + "\n";
  return text + fmt::format("\n{}: {}\n", FlagsOf(choice.candidate->layout), choice.reason);
}

void PlanLayoutFlags::Run() const {
  const std::string path = folder.empty() ? EmbeddedModelFolder() : folder;
  Question question{.model = model::ReadModel(path), .num_ranks = num_ranks};
  question.ranks_here = ranks_per_host > 0 ? std::min(ranks_per_host, num_ranks) : num_ranks;
  question.memory_per_rank = ParseBytes(memory_per_rank, "--memory-per-rank");
  question.context =
      std::min(context > 0 ? context : kContext, question.model.config.max_position_embeddings);
  if (question.context < context)
    LogWarn("--context is {}, more than the model's context: {} tokens are planned for", context,
            question.context);
  question.concurrency = concurrency;
  question.has_weights = checkpoint::HasWeights(path);
  std::optional<checkpoint::Checkpoint> checkpoint;
  if (question.has_weights)
    checkpoint.emplace(path);
  else
    checkpoint.emplace(path, checkpoint::Checkpoint::NoWeights());
  Weights weights(*checkpoint);
  const std::vector<Candidate> candidates = JudgeAll(question, weights);
  const Choice choice = Choose(question, candidates);
  WriteFileWhole("-", json ? DumpJson(ToJson(question, candidates, choice), 2) + "\n"
                           : ToText(question, candidates, choice));
  if (choice.candidate == nullptr) EndSilently(ExitCode(ErrorKind::kResource));
}

}  // namespace

void AddPlanLayout(Command program) {
  const Command command = program.Subcommand(
      "plan-layout", "which layouts of ranks hold a model, what each sends, and which to take");
  PlanLayoutFlags& flags = command.Runs<PlanLayoutFlags>(&PlanLayoutFlags::Run);
  command.Add("-m,--model", flags.folder,
              "Hugging Face folder, of which config.json suffices (default: the embedded model)");
  command.Add("--ranks", flags.num_ranks, "ranks of the run").Required().Range(1, kMaxRanks);
  command.Add("--memory-per-rank", flags.memory_per_rank, "a size, 80G").Required();
  command.Add("--ranks-per-host", flags.ranks_per_host, "ranks that share memory (default: all)")
      .Positive();
  command
      .Add("--context", flags.context,
           fmt::format("tokens of a request, at most the model's context (default: {} or that)",
                       kContext))
      .Positive();
  command.Add("--concurrency", flags.concurrency, "requests that run at once")
      .Range(1, kMaxConcurrency)
      .ShowDefault();
  command.Add("--json", flags.json, "one JSON document on stdout");
}

}  // namespace wideload::apps
