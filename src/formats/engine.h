// The engines that placements are for, and what is known of how each of them balances: which split
// its figures must assume, what it reads, and when its balancer is active. Plain values;
// thread-safe. Source: the engines' public code and documents, mid 2025 to September 2026.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace wideload::formats {

enum class Engine { kWideload, kTensorRtLlm, kVllm, kVllmAscend, kSglang };

// How an engine divides an expert's tokens over its replicas.
enum class Split { kEven, kRoundRobin, kRandom, kOptimal };
// "even", "round_robin", "random", "optimal".
std::string_view SplitName(Split split);

// One engine, or one of its variants (an option or an era in which it behaves otherwise).
struct EngineTraits {
  Engine engine = Engine::kWideload;
  std::string_view name;     // as typed: "tensorrt_llm"
  std::string_view variant;  // as typed behind a colon; empty: what the engine does by default
  std::string_view title;    // "TensorRT-LLM"
  Split split = Split::kOptimal;
  std::string_view split_text;      // how it divides tokens, for the reader
  std::string_view active_when;     // conditions under which its balancer works
  std::string_view placement_file;  // what it loads a placement from
  // Unknown keys of the placement file end its start.
  bool refuses_unknown_keys = false;
  // Prediction layers that are used need a placement of their own, or the engine does not start.
  bool places_prediction_layers = false;
};
// Engines and their variants, what an engine does by default before its variants.
std::span<const EngineTraits> AllEngines();

// "tensorrt_llm", "sglang:lp". Errors: kInvalid naming `flag`, with the names there are.
const EngineTraits& FindEngine(const std::string& name, const std::string& flag);
// What an engine does unless it is told otherwise.
const EngineTraits& DefaultTraits(Engine engine);
// "tensorrt_llm, vllm, ..." for help and messages, variants included.
std::string EngineNames();

// Errors: kInvalid naming `flag`, with the names there are.
Split ParseSplit(const std::string& name, const std::string& flag);

}  // namespace wideload::formats
