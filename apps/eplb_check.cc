// `wideload eplb check`: whether a placement file will load with a model, and what it costs.
#include <array>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "checkpoint/expert_layers.h"
#include "checkpoint/model_config.h"
#include "eplb/placement/even_split.h"
#include "eplb_commands.h"
#include "statistics/eplb_yaml.h"

namespace wideload::apps {
namespace {

struct CheckFlags {
  std::string file;
  std::string model;
  int32_t ep_size = 0;
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

// ep_size of the command line or of the file; nothing when neither tells.
std::optional<int32_t> EpSizeOf(const CheckFlags& flags, const statistics::EplbConfig& config) {
  if (flags.ep_size > 0) return flags.ep_size;
  return config.KnownEpSize();
}

// What a file costs on one number of ranks.
struct Layout {
  int32_t ep_size = 0;
  int64_t duplicate_slots = 0;
  uint64_t bytes_per_rank = 0;
  uint64_t bytes_per_rank_contiguous = 0;  // with one slot per expert
};

struct Findings {
  statistics::EplbTarget target;
  int32_t num_slots = 0;
  int32_t layer_updates_per_iter = 0;
  bool is_contiguous = false;
  uint64_t expert_bytes = 0;
  bool from_weights = false;
  std::vector<Layout> layouts;  // one, or one per number of ranks when nobody tells it
};

Layout LayoutOn(int32_t ep_size, const statistics::EplbConfig& config, const std::string& source,
                const Findings& found) {
  Layout layout{.ep_size = ep_size};
  statistics::EplbTarget target = found.target;
  target.ep_size = ep_size;
  for (const int32_t layer : target.layers)
    layout.duplicate_slots +=
        eplb::CountDuplicateSlots(statistics::LayerPlacement(config, layer, target, source));
  const uint64_t layers = target.layers.size();
  const auto ranks = static_cast<uint64_t>(ep_size);
  layout.bytes_per_rank =
      static_cast<uint64_t>(found.num_slots) / ranks * layers * found.expert_bytes;
  layout.bytes_per_rank_contiguous =
      (static_cast<uint64_t>(target.num_experts) + ranks - 1) / ranks * layers * found.expert_bytes;
  return layout;
}

Findings Inspect(const CheckFlags& flags, const checkpoint::ModelConfig& model) {
  const statistics::EplbConfig config = statistics::ReadEplbYaml(flags.file);
  const std::optional<int32_t> ep_size = EpSizeOf(flags, config);
  Findings found{.target = {.num_experts = static_cast<int32_t>(model.num_experts),
                            .ep_size = ep_size.value_or(config.ep_size.value_or(1))},
                 .num_slots = config.num_slots,
                 .layer_updates_per_iter = config.layer_updates_per_iter,
                 .is_contiguous = config.layers.empty()};
  if (model.num_experts == 0)
    Throw(ErrorKind::kInvalid, "{}: is a dense model; a placement needs experts", flags.model);
  const checkpoint::ExpertLayers experts = checkpoint::FindExpertLayers(flags.model, model);
  found.target.layers = experts.layers;
  found.target.extra_layers = experts.extra_layers;
  found.expert_bytes = experts.expert_bytes;
  found.from_weights = experts.from_weights;
  statistics::CheckEplbConfig(config, found.target, flags.file);
  for (const int32_t layer : experts.extra_layers)
    if (config.layers.contains(layer)) found.target.layers.push_back(layer);
  for (int32_t ranks = 2; ranks <= found.target.num_experts; ++ranks)
    if (ep_size ? ranks == *ep_size : config.num_slots % ranks == 0)
      found.layouts.push_back(LayoutOn(ranks, config, flags.file, found));
  if (ep_size && found.layouts.empty())
    found.layouts.push_back(LayoutOn(*ep_size, config, flags.file, found));
  return found;
}

std::string LayoutText(const Layout& layout, const Findings& found) {
  return fmt::format(
      "{:>6} ranks: {:>4} slots each, {:>9} a rank ({:>9} with one slot per expert), "
      "{} useless duplicates on one rank (all layers)\n",
      layout.ep_size, found.num_slots / layout.ep_size, FormatBytes(layout.bytes_per_rank),
      FormatBytes(layout.bytes_per_rank_contiguous), layout.duplicate_slots);
}

std::string FindingsText(const CheckFlags& flags, const checkpoint::ModelConfig& model,
                         const Findings& found) {
  std::string text = fmt::format(
      "{}: loads with {} ({}, {} experts, top-{}, {} MoE layers){}.\n", flags.file, flags.model,
      model.architecture, model.num_experts, model.top_k, found.target.layers.size(),
      found.layouts.size() == 1 ? fmt::format(" on {} ranks", found.layouts.front().ep_size)
                                : " on any of these numbers of ranks (--ep_size looks at one)");
  text += fmt::format("placement: {}; {} of {} slots of a layer redundant\n",
                      found.is_contiguous ? "contiguous (no layers in the file)" : "as listed",
                      found.num_slots - found.target.num_experts, found.num_slots);
  text += fmt::format("expert weights: {} an expert, {}\n", FormatBytes(found.expert_bytes),
                      found.from_weights ? "as stored" : "reckoned from config.json");
  for (const Layout& layout : found.layouts) text += LayoutText(layout, found);
  text +=
      found.layer_updates_per_iter == 0
          ? std::string("balancing: static (layer_updates_per_iter 0)\n")
          : fmt::format("balancing: online, {} layers per iteration (wideload refuses to run it)\n",
                        found.layer_updates_per_iter);
  text += TensorRtLlmActivates(model.architecture)
              ? "TensorRT-LLM: activates it with attention DP, moe_ep_size > 1 and a quantization "
                "that supports EPLB\n"
              : fmt::format("TensorRT-LLM: ignores it silently for {}\n", model.architecture);
  return text;
}

Json LayoutJson(const Layout& layout) {
  return {{"ep_size", layout.ep_size},
          {"duplicate_slots", layout.duplicate_slots},
          {"bytes_per_rank", layout.bytes_per_rank},
          {"bytes_per_rank_contiguous", layout.bytes_per_rank_contiguous}};
}

Json FindingsJson(const checkpoint::ModelConfig& model, const Findings& found) {
  Json document{{"architecture", model.architecture},
                {"num_experts", model.num_experts},
                {"num_moe_layers", found.target.layers.size()},
                {"num_slots", found.num_slots},
                {"layer_updates_per_iter", found.layer_updates_per_iter},
                {"is_contiguous", found.is_contiguous},
                {"layers", found.target.layers},
                {"expert_bytes", found.expert_bytes},
                {"from_weights", found.from_weights},
                {"tensorrt_llm_activates", TensorRtLlmActivates(model.architecture)}};
  if (found.layouts.size() == 1) {
    document.update(LayoutJson(found.layouts.front()));
    return document;
  }
  document["layouts"] = Json::array();
  for (const Layout& layout : found.layouts) document["layouts"].push_back(LayoutJson(layout));
  return document;
}

void Check(const CheckFlags& flags) {
  const checkpoint::ModelConfig model = checkpoint::InspectModelConfig(flags.model).config;
  const Findings found = Inspect(flags, model);
  WriteFileWhole("-", flags.json ? DumpJson(FindingsJson(model, found), 2) + "\n"
                                 : FindingsText(flags, model, found));
}

}  // namespace

void AddEplbCheck(Command group) {
  const Command command =
      group.Subcommand("check", "will this placement file load with a model, and what it costs");
  CheckFlags& flags = command.Runs<CheckFlags>(Check);
  command.Add("file", flags.file, "EPLB YAML").Required();
  command.Add("-m,--model", flags.model, "the model's folder").Required();
  command
      .Add("--ep-size", flags.ep_size,
           "ranks (default: those of the file, else every number that divides its slots)")
      .Positive();
  command.Add("--json", flags.json, "one JSON document instead of the text");
}

}  // namespace wideload::apps
