// `wideload eplb check`: whether a placement file will load with a model, and what it costs.
#include <array>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "checkpoint/model_config.h"
#include "command_line.h"
#include "eplb/even_split.h"
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

// ep_size of the file or of the command line.
int32_t EpSizeOf(const CheckFlags& flags, const statistics::EplbConfig& config) {
  if (flags.ep_size > 0) return flags.ep_size;
  if (config.ep_size) return *config.ep_size;
  Throw(ErrorKind::kInvalid, "--ep_size is missing; {} does not tell it", flags.file);
}

struct Findings {
  statistics::EplbTarget target;
  int32_t num_slots = 0;
  int32_t layer_updates_per_iter = 0;
  bool is_contiguous = false;
  int64_t duplicate_slots = 0;
  uint64_t expert_bytes = 0;
  uint64_t bytes_per_rank = 0;
  uint64_t bytes_per_rank_contiguous = 0;  // with one slot per expert
};

Findings Inspect(const CheckFlags& flags, const checkpoint::ModelConfig& model) {
  const statistics::EplbConfig config = statistics::ReadEplbYaml(flags.file);
  Findings found{.target = {.num_experts = static_cast<int32_t>(model.num_experts),
                            .ep_size = EpSizeOf(flags, config)},
                 .num_slots = config.num_slots,
                 .layer_updates_per_iter = config.layer_updates_per_iter,
                 .is_contiguous = config.layers.empty()};
  if (model.num_experts == 0)
    Throw(ErrorKind::kInvalid, "{}: is a dense model; a placement needs experts", flags.model);
  for (int64_t layer = 0; layer < model.num_layers; ++layer)
    if (model.IsMoeLayer(layer)) found.target.layers.push_back(static_cast<int32_t>(layer));
  statistics::CheckEplbConfig(config, found.target, flags.file);
  for (const int32_t layer : found.target.layers)
    found.duplicate_slots += eplb::CountDuplicateSlots(
        statistics::LayerPlacement(config, layer, found.target, flags.file));
  // gate, up and down projection
  found.expert_bytes = 3 * static_cast<uint64_t>(model.hidden_size) *
                       static_cast<uint64_t>(model.moe_intermediate_size) *
                       static_cast<uint64_t>(DTypeBytes(model.dtype));
  const uint64_t layers = found.target.layers.size();
  const auto ranks = static_cast<uint64_t>(found.target.ep_size);
  found.bytes_per_rank =
      static_cast<uint64_t>(config.num_slots) / ranks * layers * found.expert_bytes;
  found.bytes_per_rank_contiguous =
      (static_cast<uint64_t>(model.num_experts) + ranks - 1) / ranks * layers * found.expert_bytes;
  return found;
}

std::string FindingsText(const CheckFlags& flags, const checkpoint::ModelConfig& model,
                         const Findings& found) {
  std::string text =
      fmt::format("{}: loads with {} ({}, {} experts, top-{}, {} MoE layers) on {} ranks.\n",
                  flags.file, flags.model, model.architecture, model.num_experts, model.top_k,
                  found.target.layers.size(), found.target.ep_size);
  text += fmt::format(
      "placement: {}; {} slots a rank, {} of {} slots redundant, {} of them useless "
      "duplicates on one rank (all layers)\n",
      found.is_contiguous ? "contiguous (no layers in the file)" : "as listed",
      found.num_slots / found.target.ep_size, found.num_slots - found.target.num_experts,
      found.num_slots, found.duplicate_slots);
  text += found.layer_updates_per_iter == 0
              ? std::string("balancing: static (layer_updates_per_iter 0)\n")
              : fmt::format("balancing: online, {} layers per iteration\n",
                            found.layer_updates_per_iter);
  text += fmt::format("expert weights: {} an expert, {} a rank; {} with one slot per expert\n",
                      FormatBytes(found.expert_bytes), FormatBytes(found.bytes_per_rank),
                      FormatBytes(found.bytes_per_rank_contiguous));
  text += TensorRtLlmActivates(model.architecture)
              ? "TensorRT-LLM: activates it with attention DP, moe_ep_size > 1 and a quantization "
                "that supports EPLB\n"
              : fmt::format("TensorRT-LLM: ignores it silently for {}\n", model.architecture);
  return text;
}

Json FindingsJson(const checkpoint::ModelConfig& model, const Findings& found) {
  return {{"architecture", model.architecture},
          {"num_experts", model.num_experts},
          {"num_moe_layers", found.target.layers.size()},
          {"ep_size", found.target.ep_size},
          {"num_slots", found.num_slots},
          {"layer_updates_per_iter", found.layer_updates_per_iter},
          {"is_contiguous", found.is_contiguous},
          {"duplicate_slots", found.duplicate_slots},
          {"expert_bytes", found.expert_bytes},
          {"bytes_per_rank", found.bytes_per_rank},
          {"bytes_per_rank_contiguous", found.bytes_per_rank_contiguous},
          {"tensorrt_llm_activates", TensorRtLlmActivates(model.architecture)}};
}

void Check(const CheckFlags& flags) {
  const checkpoint::ModelConfig model = checkpoint::InspectModelConfig(flags.model).config;
  const Findings found = Inspect(flags, model);
  WriteFileWhole("-", flags.json ? DumpJson(FindingsJson(model, found), 2) + "\n"
                                 : FindingsText(flags, model, found));
}

}  // namespace

void AddEplbCheck(CLI::App& group) {
  CLI::App* command = group.add_subcommand(
      "check", "will this placement file load with a model, and what it costs");
  const auto flags = std::make_shared<CheckFlags>();  // shared by the parser and the callback
  command->add_option("file", flags->file, "EPLB YAML")->required();
  command->add_option(Names("model", "m"), flags->model, "the model's folder")->required();
  command->add_option(Names("ep-size"), flags->ep_size, "ranks (default: what the file says)")
      ->check(CLI::PositiveNumber);
  command->add_flag("--json", flags->json, "one JSON document instead of the text");
  command->callback([flags] { Check(*flags); });
}

}  // namespace wideload::apps
