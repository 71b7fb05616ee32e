#include "formats/engine.h"

#include <array>

#include "base/error.h"

namespace wideload::formats {
namespace {

constexpr std::array<std::string_view, 4> kSplits = {"even", "round_robin", "random", "optimal"};

constexpr std::string_view kTensorRtActive =
    "attention DP with more than one rank, moe_expert_parallel_size > 1, moe_cluster size 1, a "
    "quantization that supports it, and an architecture on its list; otherwise load_balancer is "
    "ignored without a word";
constexpr std::string_view kVllmActive =
    "--enable-expert-parallel --enable-eplb, tensor parallel x data parallel > 1, and a model and "
    "quantization that support EPLB; num_redundant_experts is slots less experts";
constexpr std::string_view kSglangActive =
    "--init-expert-location or --enable-eplb with ep_size > 1; --ep-num-redundant-experts is slots "
    "less experts, and slots must be a multiple of ep_size";

constexpr EngineTraits kEngines[] = {
    {.engine = Engine::kTensorRtLlm,
     .name = "tensorrt_llm",
     .variant = "",
     .title = "TensorRT-LLM",
     .split = Split::kEven,
     .split_text = "an expert's tokens go round its slots in turn, each rank beginning elsewhere",
     .active_when = kTensorRtActive,
     .placement_file = "EPLB YAML (moe_config.load_balancer)",
     .refuses_unknown_keys = true,
     .places_prediction_layers = true},
    {.engine = Engine::kTensorRtLlm,
     .name = "tensorrt_llm",
     .variant = "2025",
     .title = "TensorRT-LLM of 2025",
     .split = Split::kEven,
     .split_text = "an expert's tokens go round its slots in turn, each rank beginning elsewhere",
     .active_when = "attention DP, moe_expert_parallel_size > 1 and an architecture on its list; "
                    "for others it "
                    "ends with \"Cannot calculate num_local_slots\"",
     .placement_file = "EPLB YAML (moe_config.load_balancer), without the key mode",
     .refuses_unknown_keys = true,
     .places_prediction_layers = true},
    {.engine = Engine::kVllm,
     .name = "vllm",
     .variant = "",
     .title = "vLLM",
     .split = Split::kRoundRobin,
     .split_text = "a token's place in the batch picks the replica (modulo their number)",
     .active_when = kVllmActive,
     .placement_file = "mapping .jsonl (eplb_config.initial_mapping_path)"},
    {.engine = Engine::kVllmAscend,
     .name = "vllm_ascend",
     .variant = "",
     .title = "vLLM on Ascend",
     .split = Split::kEven,
     .split_text = "ranks are dealt out over an expert's replicas, a replica of their own first",
     .active_when =
         "additional_config expert_map_path (static) or dynamic_eplb, expert parallel on",
     .placement_file = "expert_map .json (additional_config.expert_map_path)"},
    {.engine = Engine::kSglang,
     .name = "sglang",
     .variant = "",
     .title = "SGLang",
     .split = Split::kEven,
     .split_text =
         "ep-dispatch-algorithm static: each rank keeps to one replica, ranks are dealt out evenly",
     .active_when = kSglangActive,
     .placement_file = ".json with physical_to_logical_map (--init-expert-location)"},
    {.engine = Engine::kSglang,
     .name = "sglang",
     .variant = "dynamic",
     .title = "SGLang with ep-dispatch-algorithm dynamic",
     .split = Split::kRandom,
     .split_text = "each token draws one of its expert's replicas at random",
     .active_when = kSglangActive,
     .placement_file = ".json with physical_to_logical_map (--init-expert-location)"},
    {.engine = Engine::kSglang,
     .name = "sglang",
     .variant = "lp",
     .title = "SGLang with ep-dispatch-algorithm lp",
     .split = Split::kOptimal,
     .split_text =
         "a linear program per batch gives shares, and tokens draw a replica by these shares; the "
         "figures are of the shares themselves",
     .active_when = kSglangActive,
     .placement_file = ".json with physical_to_logical_map (--init-expert-location)"},
    {.engine = Engine::kWideload,
     .name = "wideload",
     .variant = "",
     .title = "wideload",
     .split = Split::kOptimal,
     .split_text = "each batch is split by its own counts so that the busiest rank has least",
     .active_when = "--num-slots or --eplb-config, and more than one expert-parallel rank",
     .placement_file = "EPLB YAML (--eplb-config)"},
};

std::string FullName(const EngineTraits& traits) {
  return traits.variant.empty() ? std::string(traits.name)
                                : fmt::format("{}:{}", traits.name, traits.variant);
}

}  // namespace

std::string_view SplitName(Split split) { return kSplits[static_cast<size_t>(split)]; }

Split ParseSplit(const std::string& name, const std::string& flag) {
  for (size_t i = 0; i < kSplits.size(); ++i)
    if (kSplits[i] == name) return static_cast<Split>(i);
  Throw(ErrorKind::kInvalid, "{} is \"{}\"; allowed: {}", flag, name, fmt::join(kSplits, ", "));
}

std::span<const EngineTraits> AllEngines() { return kEngines; }

std::string EngineNames() {
  std::string names;
  for (const EngineTraits& traits : kEngines)
    names += (names.empty() ? "" : ", ") + FullName(traits);
  return names;
}

const EngineTraits& FindEngine(const std::string& name, const std::string& flag) {
  for (const EngineTraits& traits : kEngines)
    if (FullName(traits) == name) return traits;
  Throw(ErrorKind::kInvalid, "{} is \"{}\"; allowed: {}", flag, name, EngineNames());
}

const EngineTraits& DefaultTraits(Engine engine) {
  for (const EngineTraits& traits : kEngines)
    if (traits.engine == engine && traits.variant.empty()) return traits;
  WIDELOAD_CHECK(false, "engine {} has no row", static_cast<int>(engine));
}

}  // namespace wideload::formats
