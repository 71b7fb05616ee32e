// `wideload eplb check`: whether a placement file will load with a model and an engine, what is
// wrong with it, and what it costs.
#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/expert_layers.h"
#include "checkpoint/model_config.h"
#include "eplb/placement/even_split.h"
#include "eplb_commands.h"
#include "eplb_engine.h"
#include "formats/placement_file.h"

namespace wideload::apps {
namespace {

using formats::Engine;

struct CheckFlags {
  std::string file;
  std::string model;
  TargetEngineFlags engine;
  int32_t ep_size = 0;
  int32_t mtp_layers = -1;  // not given: the model's
  bool json = false;
};

// Architectures for which TensorRT-LLM activates a load balancer; others ignore it silently.
constexpr std::array<std::string_view, 13> kTensorRtLlmArchitectures = {
    "DeepseekV3", "DeepseekV32", "DeepseekV4", "GlmMoeDsa", "GptOss",     "KimiK25",   "Mixtral",
    "Llama4",     "NemotronH",   "Qwen2Moe",   "Qwen3Moe",  "Qwen3_5Moe", "Qwen3VLMoe"};

bool TensorRtLlmActivates(const std::string& architecture) {
  return std::any_of(kTensorRtLlmArchitectures.begin(), kTensorRtLlmArchitectures.end(),
                     [&](std::string_view name) {
                       return architecture == std::string(name) + "ForCausalLM" ||
                              architecture == std::string(name) + "ForConditionalGeneration";
                     });
}

// What a file costs on one number of ranks.
struct Layout {
  int32_t ep_size = 0;
  int64_t duplicate_slots = 0;
  uint64_t bytes_per_rank = 0;             // 0 when an expert's bytes are not known
  uint64_t bytes_per_rank_contiguous = 0;  // with one slot per expert
};

struct Findings {
  formats::PlacementFile file;
  TargetEngine engine;
  checkpoint::ExpertLayers experts;
  statistics::EplbTarget target;      // layers: those of the model that the file places
  std::vector<Layout> layouts;        // one, or one per number of ranks when nobody tells it
  std::vector<std::string> problems;  // for which the engine ends or ignores the file
  std::vector<std::string> warnings;
};

Layout LayoutOn(int32_t ep_size, const CheckFlags& flags, const Findings& found) {
  const statistics::EplbConfig& config = found.file.config;
  Layout layout{.ep_size = ep_size};
  statistics::EplbTarget target = found.target;
  target.ep_size = ep_size;
  for (const int32_t layer : target.layers)
    if (config.layers.empty() || config.layers.contains(layer))
      layout.duplicate_slots +=
          eplb::CountDuplicateSlots(statistics::LayerPlacement(config, layer, target, flags.file));
  const uint64_t layers = target.layers.size();
  const auto ranks = static_cast<uint64_t>(ep_size);
  const uint64_t bytes = found.experts.expert_bytes.value_or(0);
  layout.bytes_per_rank = static_cast<uint64_t>(config.num_slots) / ranks * layers * bytes;
  layout.bytes_per_rank_contiguous =
      (static_cast<uint64_t>(target.num_experts) + ranks - 1) / ranks * layers * bytes;
  return layout;
}

// Names layer, slot and id of what no engine could place.
void CheckIds(const CheckFlags& flags, const Findings& found) {
  for (const auto& [layer, slots] : found.file.config.layers)
    for (size_t s = 0; s < slots.size(); ++s)
      if (slots[s] >= found.target.num_experts)
        Throw(
            ErrorKind::kInvalid,
            "{}: layer {}, slot {} holds expert {}: places {} experts; the model has {} (is it the "
            "file of another model?)",
            flags.file, layer, s, slots[s], found.file.config.num_experts(),
            found.target.num_experts);
}

// The first slot that holds what its rank has already: layer, slot, id.
void WarnOfDuplicates(int32_t ep_size, Findings& found) {
  const int32_t per_rank = found.file.config.num_slots / ep_size;
  for (const auto& [layer, slots] : found.file.config.layers)
    for (size_t s = 0; s < slots.size(); ++s) {
      const auto first = slots.begin() + static_cast<int64_t>(s) / per_rank * per_rank;
      const auto here = slots.begin() + static_cast<int64_t>(s);
      const auto twin = std::find(first, here, slots[s]);
      if (twin == here) continue;
      found.warnings.push_back(fmt::format(
          "layer {}, slot {} holds expert {}, which slot {} of the same rank holds, too: a useless "
          "copy (the first of {})",
          layer, s, slots[s], twin - slots.begin(), found.layouts.front().duplicate_slots));
      return;
    }
}

std::string Joined(const std::vector<int32_t>& layers) {
  return fmt::to_string(fmt::join(layers, ", "));
}

// Prediction layers that are used need their placement; others may stay out of the file.
void CheckPredictionLayers(const CheckFlags& flags, Findings& found) {
  const std::vector<int32_t>& extra = found.experts.extra_layers;
  const size_t used = flags.mtp_layers < 0
                          ? extra.size()
                          : std::min<size_t>(extra.size(), static_cast<size_t>(flags.mtp_layers));
  std::vector<int32_t> missing;
  for (size_t i = 0; i < used; ++i)
    if (!found.file.config.layers.contains(extra[i])) missing.push_back(extra[i]);
  if (missing.empty() || found.file.config.layers.empty() || !found.engine.traits ||
      !found.engine.traits->places_prediction_layers)
    return;
  const std::string text = fmt::format(
      "layer {} is missing: it is a prediction (MTP) layer of the model, and {} ends at start with "
      "speculative decoding on (KeyError: {})",
      Joined(missing), found.engine.Title(), missing.front());
  const bool is_certain = found.engine.is_named || flags.mtp_layers > 0;
  (is_certain ? found.problems : found.warnings)
      .push_back(is_certain ? text + "; --mtp_layers 0 says that none is used"
                            : text + "; without it the file loads");
}

void CheckForTensorRtLlm(const checkpoint::ModelConfig& model, Findings& found) {
  if (found.file.engine != Engine::kTensorRtLlm)
    found.problems.push_back(fmt::format(
        "is {}; TensorRT-LLM loads EPLB YAML (wideload eplb convert)", found.file.format));
  if (found.file.config.ep_size)
    found.problems.push_back(
        "holds the key ep_size, which TensorRT-LLM refuses as unknown; a comment \"# ep_size: N\" "
        "says it to wideload alone");
  if (!TensorRtLlmActivates(model.architecture))
    found.warnings.push_back(
        fmt::format("TensorRT-LLM: ignores it silently for {}", model.architecture));
}

// SGLang's rows are all layers of the model; vLLM's are its MoE layers.
void CheckForRowEngines(const CheckFlags& flags, Findings& found) {
  const Engine engine = found.engine.traits->engine;
  const auto rows = static_cast<int64_t>(found.file.config.layers.size());
  const int64_t wanted = engine == Engine::kSglang
                             ? found.experts.num_layers
                             : static_cast<int64_t>(found.experts.layers.size());
  if (found.file.engine != engine)
    found.problems.push_back(fmt::format("is {}; {} loads {} (wideload eplb convert)",
                                         found.file.format, found.engine.Title(),
                                         found.engine.traits->placement_file));
  else if (rows != wanted)
    found.problems.push_back(
        fmt::format("has {} rows; {} needs {}: {}", rows, found.engine.Title(), wanted,
                    engine == Engine::kSglang ? "every layer of the model" : "every MoE layer"));
  const std::optional<int32_t> known = found.file.config.planned_ep_size;
  if (flags.ep_size > 0 && known && *known != flags.ep_size)
    found.problems.push_back(
        fmt::format("is for {} devices; --ep_size is {}", *known, flags.ep_size));
}

void CheckForEngine(const CheckFlags& flags, const checkpoint::ModelConfig& model,
                    Findings& found) {
  CheckPredictionLayers(flags, found);
  if (!found.engine.traits) return;
  switch (found.engine.traits->engine) {
    case Engine::kTensorRtLlm:
      return CheckForTensorRtLlm(model, found);
    case Engine::kWideload:
      if (found.file.engine != Engine::kTensorRtLlm)
        found.problems.push_back(fmt::format("is {}; wideload loads EPLB YAML", found.file.format));
      return;
    default:
      return CheckForRowEngines(flags, found);
  }
}

// Rows that are only numbered are the model's layers: all of them, or its MoE layers, in order.
void NumberRows(Findings& found) {
  if (!found.file.numbers_rows) return;
  statistics::EplbConfig& config = found.file.config;
  if (std::ssize(config.layers) != found.experts.num_layers)
    config = formats::NumberedLike(std::move(config), found.experts.layers);
  else
    std::erase_if(config.layers, [&](const auto& row) {
      return std::find(found.experts.layers.begin(), found.experts.layers.end(), row.first) ==
             found.experts.layers.end();
    });
}

Findings Inspect(const CheckFlags& flags, const checkpoint::ModelConfig& model) {
  Findings found{.file = formats::ReadPlacementFile(flags.file)};
  if (model.num_experts == 0)
    Throw(ErrorKind::kInvalid, "{}: is a dense model; a placement needs experts", flags.model);
  found.engine = ChooseEngine(flags.engine, found.file.engine, flags.file);
  found.experts = checkpoint::FindExpertLayers(flags.model, model);
  const std::optional<int32_t> ep_size =
      flags.ep_size > 0 ? std::optional(flags.ep_size) : found.file.config.KnownEpSize();
  found.target = {.num_experts = static_cast<int32_t>(model.num_experts),
                  .ep_size = ep_size.value_or(1),
                  .layers = found.experts.layers,
                  .extra_layers = found.experts.extra_layers};
  CheckIds(flags, found);
  CheckForEngine(flags, model, found);  // before rows of a file are left out
  NumberRows(found);
  statistics::CheckEplbConfig(found.file.config, found.target, flags.file);
  for (const int32_t layer : found.experts.extra_layers)
    if (found.file.config.layers.contains(layer)) found.target.layers.push_back(layer);
  for (int32_t ranks = 2; ranks <= found.target.num_experts; ++ranks)
    if (ep_size ? ranks == *ep_size : found.file.config.num_slots % ranks == 0)
      found.layouts.push_back(LayoutOn(ranks, flags, found));
  if (ep_size && found.layouts.empty()) found.layouts.push_back(LayoutOn(*ep_size, flags, found));
  if (ep_size) WarnOfDuplicates(*ep_size, found);
  return found;
}

std::string LayoutText(const Layout& layout, const Findings& found) {
  const std::string slots = fmt::format("{:>6} ranks: {:>4} slots each", layout.ep_size,
                                        found.file.config.num_slots / layout.ep_size);
  const std::string duplicates =
      fmt::format("{} useless duplicates on one rank (all layers)\n", layout.duplicate_slots);
  if (!found.experts.expert_bytes) return fmt::format("{}, bytes unknown, {}", slots, duplicates);
  return fmt::format("{}, {:>9} a rank ({:>9} with one slot per expert), {}", slots,
                     FormatBytes(layout.bytes_per_rank),
                     FormatBytes(layout.bytes_per_rank_contiguous), duplicates);
}

std::string ExpertText(const checkpoint::ExpertLayers& experts) {
  if (!experts.expert_bytes)
    return fmt::format("expert weights: unknown bytes an expert: {}\n", experts.storage);
  return fmt::format("expert weights: {} an expert, {}\n", FormatBytes(*experts.expert_bytes),
                     experts.from_weights
                         ? "as stored"
                         : fmt::format("reckoned from config.json ({})", experts.storage));
}

std::string FindingsText(const CheckFlags& flags, const checkpoint::ModelConfig& model,
                         const Findings& found) {
  const statistics::EplbConfig& config = found.file.config;
  std::string text = fmt::format(
      "{}: {} {} ({}, {} experts, top-{}, {} MoE layers){}.\n", flags.file,
      found.problems.empty() ? fmt::format("loads in {} with", found.engine.Title())
                             : fmt::format("is refused by {} for", found.engine.Title()),
      flags.model, model.architecture, model.num_experts, model.top_k, found.target.layers.size(),
      found.layouts.size() == 1 ? fmt::format(" on {} ranks", found.layouts.front().ep_size)
                                : " on any of these numbers of ranks (--ep_size looks at one)");
  for (const std::string& problem : found.problems) text += fmt::format("problem: {}\n", problem);
  for (const std::string& warning : found.warnings) text += fmt::format("note: {}\n", warning);
  text += fmt::format("placement: {}; {} of {} slots of a layer redundant\n",
                      config.layers.empty() ? "contiguous (no layers in the file)" : "as listed",
                      config.num_slots - found.target.num_experts, config.num_slots);
  text += ExpertText(found.experts);
  for (const Layout& layout : found.layouts) text += LayoutText(layout, found);
  text += config.layer_updates_per_iter == 0
              ? std::string("balancing: static (layer_updates_per_iter 0)\n")
              : fmt::format("balancing: online, {} layers per iteration\n",
                            config.layer_updates_per_iter);
  if (found.engine.traits)
    text +=
        fmt::format("{}: active with {}\n", found.engine.Title(), found.engine.traits->active_when);
  return text;
}

Json LayoutJson(const Layout& layout, bool knows_bytes) {
  Json json{{"ep_size", layout.ep_size}, {"duplicate_slots", layout.duplicate_slots}};
  json["bytes_per_rank"] = knows_bytes ? Json(layout.bytes_per_rank) : Json();
  json["bytes_per_rank_contiguous"] = knows_bytes ? Json(layout.bytes_per_rank_contiguous) : Json();
  return json;
}

Json FindingsJson(const checkpoint::ModelConfig& model, const Findings& found) {
  const statistics::EplbConfig& config = found.file.config;
  const bool knows_bytes = found.experts.expert_bytes.has_value();
  Json document{{"architecture", model.architecture},
                {"num_experts", model.num_experts},
                {"num_moe_layers", found.target.layers.size()},
                {"num_slots", config.num_slots},
                {"layer_updates_per_iter", config.layer_updates_per_iter},
                {"is_contiguous", config.layers.empty()},
                {"layers", found.target.layers},
                {"format", found.file.format},
                {"engine", found.engine.traits ? std::string(found.engine.traits->name) : ""},
                {"problems", found.problems},
                {"notes", found.warnings},
                {"storage", found.experts.storage},
                {"from_weights", found.experts.from_weights},
                {"tensorrt_llm_activates", TensorRtLlmActivates(model.architecture)}};
  document["expert_bytes"] = knows_bytes ? Json(*found.experts.expert_bytes) : Json();
  if (found.layouts.size() == 1) {
    document.update(LayoutJson(found.layouts.front(), knows_bytes));
    return document;
  }
  document["layouts"] = Json::array();
  for (const Layout& layout : found.layouts)
    document["layouts"].push_back(LayoutJson(layout, knows_bytes));
  return document;
}

void CheckPlan(const CheckFlags& flags) {
  const checkpoint::ModelConfig model = checkpoint::ReadModelConfig(flags.model);
  const Findings found = Inspect(flags, model);
  WriteFileWhole("-", flags.json ? DumpJson(FindingsJson(model, found), 2) + "\n"
                                 : FindingsText(flags, model, found));
  if (!found.problems.empty())
    Throw(ErrorKind::kInvalid, "{}: {} refuses it: {}", flags.file, found.engine.Title(),
          fmt::join(found.problems, "; "));
}

}  // namespace

void AddEplbCheck(Command group) {
  const Command command = group.Subcommand(
      "check", "will this placement file load with a model and an engine, and what it costs");
  CheckFlags& flags = command.Runs<CheckFlags>(CheckPlan);
  command.Add("file", flags.file, "EPLB YAML, or a placement file of vLLM or SGLang").Required();
  command.Add("-m,--model", flags.model, "the model's folder").Required();
  command.Add("--engine", flags.engine.engine,
              fmt::format("the engine that is to load it: {} (default: the one whose format it is)",
                          formats::EngineNames()));
  command
      .Add("--ep-size", flags.ep_size,
           "ranks (default: those of the file, else every number that divides its slots)")
      .Positive();
  command
      .Add("--mtp-layers", flags.mtp_layers,
           "prediction layers that are used (default: all of the model, where --engine is given)")
      .NonNegative();
  command.Add("--json", flags.json, "one JSON document instead of the text");
}

}  // namespace wideload::apps
