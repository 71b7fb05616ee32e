#include "eplb_engine.h"

#include "base/error.h"

namespace wideload::apps {

void AddTargetEngineFlags(Command command, TargetEngineFlags& flags) {
  command.Add("--engine", flags.engine,
              fmt::format("the engine that serves: {} (default: what the input's format implies)",
                          formats::EngineNames()));
  command.Add("--split", flags.split,
              "how an expert's tokens are divided over its replicas: even, round_robin, random, "
              "optimal (default: as the engine does)");
}

std::string TargetEngine::Title() const {
  return traits ? std::string(traits->title) : "engines that split evenly";
}

std::string TargetEngine::Sentence() const {
  std::string text =
      fmt::format("figures for {} ({}): {} split", Title(), why, formats::SplitName(split));
  if (traits && split == traits->split) text += fmt::format(", {}", traits->split_text);
  return text;
}

TargetEngine ChooseEngine(const TargetEngineFlags& flags, std::optional<formats::Engine> implied,
                          const std::string& source) {
  TargetEngine target;
  if (!flags.engine.empty()) {
    target.traits = &formats::FindEngine(flags.engine, "--engine");
    target.is_named = true;
    target.why = "--engine";
  } else if (implied) {
    target.traits = &formats::DefaultTraits(*implied);
    target.why = fmt::format("{} is of its format; --engine names another", source);
  } else {
    target.why =
        "as TensorRT-LLM, vLLM and SGLang do; --engine names one, --split optimal is for engines "
        "that split each batch by its counts";
  }
  if (target.traits) target.split = target.traits->split;
  if (!flags.split.empty()) target.split = formats::ParseSplit(flags.split, "--split");
  return target;
}

RankChoice ChooseRanks(const std::vector<RankChoice>& choices) {
  for (const RankChoice& choice : choices)
    if (choice.ep_size > 0) return choice;
  return {};
}

std::string ValidSlots(int32_t num_experts, int32_t ep_size) {
  const int32_t least = (num_experts + ep_size - 1) / ep_size * ep_size;
  return fmt::format("{}, {}, {} ...", least, least + ep_size, least + 2 * ep_size);
}

}  // namespace wideload::apps
