// The diagnosis in sentences: the question asked first, then what else was measured.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "eplb/replay/diagnosis.h"
#include "eplb_engine.h"

namespace wideload::apps {

// What a slot costs in memory, when the model is known.
struct SlotCost {
  std::optional<uint64_t> expert_bytes = {};
  uint64_t num_layers = 0;
  std::optional<uint64_t> kv_bytes_per_token = {};
};

struct VerdictContext {
  TargetEngine engine;
  SlotCost cost = {};
  std::string now;          // "the 40 slots that ran", "experts in order"
  bool asks_slots = false;  // a number of slots was asked for
  std::string
      measured_on;  // "the second half of 6 recorded iterations, which the plans have not seen"
};

// One sentence a line: is it worth it, what limits it, then one or two for other sizes.
std::string VerdictText(const eplb::DiagnosisFigures& figures, const eplb::Diagnosis& diagnosis,
                        const VerdictContext& context);

// "9 slots a rank, 12.5 % more expert weights" and, with a known model, bytes and KV cache.
std::string CostText(const eplb::Sizes& sizes, int32_t num_experts, const SlotCost& cost);

}  // namespace wideload::apps
