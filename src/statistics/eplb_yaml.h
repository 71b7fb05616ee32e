// The EPLB YAML file as TensorRT-LLM's generator writes it: which expert each slot of each layer
// holds. Plain values; thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eplb/placement/placement.h"

namespace wideload::statistics {

// layers: layer index of the model -> expert of each slot [num_slots], rank after rank. It may be
// empty: then every layer starts contiguous.
struct EplbConfig {
  int32_t num_slots = 0;
  int32_t layer_updates_per_iter = 0;
  std::optional<int32_t> ep_size = {};  // written by some tools, never by us; binding
  // From a line "# ep_size: N": the ranks it was made for. TensorRT-LLM refuses keys that it does
  // not know, and skips comments. Only a default for who does not say otherwise.
  std::optional<int32_t> planned_ep_size = {};
  std::map<int32_t, std::vector<int32_t>> layers = {};

  // 1 + the largest expert id; 0 without layers.
  int32_t num_experts() const;
  // The binding ep_size, else the planned one.
  std::optional<int32_t> KnownEpSize() const { return ep_size ? ep_size : planned_ep_size; }
  // Sets the slots of a layer; their number must be num_slots.
  void SetLayer(int32_t layer, const eplb::Placement& placement);
  bool operator==(const EplbConfig&) const = default;
};

// The layers that the file places, ascending.
std::vector<int32_t> LayersOf(const EplbConfig& config);

// More slots than this are taken for a damaged file.
inline constexpr int32_t kMaxEplbSlots = 1 << 16;
// Likewise for layers and their numbers.
inline constexpr int32_t kMaxEplbLayers = 1 << 13;
// Of a plan: more than any engine shares experts over (320 in 2026). What searches take grows
// faster than the number of ranks.
inline constexpr int32_t kMaxEplbRanks = 1024;

// Errors, each with `source`, line, found and allowed: kCorrupt for text that is no YAML, duplicate
// keys, aliases and tags; kInvalid for unknown keys, values that are no integers in range, a
// missing num_slots, lists of another length than num_slots, and layers that do not hold every
// expert 0..num_experts-1.
EplbConfig ParseEplbYaml(std::string_view text, const std::string& source);
// The same of a file; "-" is standard input. Errors: also kNotFound and kIo.
EplbConfig ReadEplbYaml(const std::string& path);

// Byte for byte the generator's layout: sorted keys, one line per layer; then the comment of
// planned_ep_size if there is one. Ends with a newline.
std::string FormatEplbYaml(const EplbConfig& config);
// Whole or not at all; "-" is standard output. Errors: kIo.
void WriteEplbYaml(const std::string& path, const EplbConfig& config);

// What a file is going to be used with.
struct EplbTarget {
  int32_t num_experts = 0;
  int32_t ep_size = 0;
  std::vector<int32_t> layers = {};        // MoE layers of the model, ascending
  std::vector<int32_t> extra_layers = {};  // others that a file may have: prediction layers
};

// Errors: kInvalid naming source, layer, found and allowed: a file of another model (expert count,
// layers), num_slots that ep_size does not divide, an ep_size in the file that differs.
void CheckEplbConfig(const EplbConfig& config, const EplbTarget& target, const std::string& source);

// The placement of one layer; contiguous when the file has no layers.
// Errors: kInvalid naming source and layer when it is missing or does not fit.
eplb::Placement LayerPlacement(const EplbConfig& config, int32_t layer, const EplbTarget& target,
                               const std::string& source);

}  // namespace wideload::statistics
