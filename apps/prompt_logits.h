// Lists of token ids through the engine for the logits of their positions.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/memory_plan.h"
#include "session.h"

namespace wideload::apps {

// What list i is called in messages: "ids.json: list 3".
using ListName = std::function<std::string(size_t i)>;

// Before weights are loaded: refuses what the engine would refuse, and logits that the memory
// cannot hold beside `others`. Returns the tokens of the longest list. Errors: kInvalid, kResource.
int64_t CheckPromptLogits(std::span<const std::vector<int32_t>> lists, const ListName& name,
                          const Session& session, const runtime::EngineOptions& options,
                          std::vector<checkpoint::MemoryPart> others = {});

// Takes the logits [vocab_size] of a position of list i; those of a list in order of position, from
// the first again where it was preempted.
using PromptLogitsSink =
    std::function<void(size_t i, int64_t position, std::span<const float> logits)>;

// Runs all lists to their end, recorded. The engine has run nothing before. Errors: kRunFailed
// naming the list, and for an interrupt; what `sink` throws.
void RunPromptLogits(Session& session, std::span<const std::vector<int32_t>> lists,
                     const ListName& name, const PromptLogitsSink& sink);

}  // namespace wideload::apps
