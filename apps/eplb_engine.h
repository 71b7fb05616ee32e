// For which engine the eplb commands answer, on how many ranks, and where they know that from: no
// figure is told without these.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "command_line.h"
#include "formats/engine.h"

namespace wideload::apps {

struct TargetEngineFlags {
  std::string engine;  // empty: what the input's format implies
  std::string split;   // empty: the engine's
};
void AddTargetEngineFlags(Command command, TargetEngineFlags& flags);

// The engine of the figures.
struct TargetEngine {
  const formats::EngineTraits* traits = nullptr;  // null: none is named or implied
  formats::Split split = formats::Split::kEven;
  bool is_named = false;  // by --engine
  std::string why;        // "--engine", "stats holds what TensorRT-LLM records", ...

  // Whether figures are those of the optimal split of each batch.
  bool SplitsByCounts() const { return split == formats::Split::kOptimal; }
  // "TensorRT-LLM" or "an engine that splits evenly".
  std::string Title() const;
  // "for TensorRT-LLM (stats is its format): even split, ..."
  std::string Sentence() const;
};
// `implied` by the format of `source`, if any; without either the split is even, as TensorRT-LLM,
// vLLM and SGLang do. Errors: kInvalid naming --engine or --split.
TargetEngine ChooseEngine(const TargetEngineFlags& flags, std::optional<formats::Engine> implied,
                          const std::string& source);

// A number of ranks and where it is from.
struct RankChoice {
  int32_t ep_size = 0;  // 0: nobody tells it
  std::string from;
};
// The first of `choices` that tells it.
RankChoice ChooseRanks(const std::vector<RankChoice>& choices);

// The smallest number of slots that ep_size divides and that gives every expert one, and the next
// ones: "256, 288, 320 ...". For messages.
std::string ValidSlots(int32_t num_experts, int32_t ep_size);

}  // namespace wideload::apps
