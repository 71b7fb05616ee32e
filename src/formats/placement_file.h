// Placements as the engines read them: TensorRT-LLM's EPLB YAML, vLLM's mapping (JSONL), vLLM on
// Ascend's expert_map (JSON), SGLang's physical_to_logical_map (JSON, torch.save) and plain arrays
// [layers, slots]. All are read into, and written from, an EplbConfig. Thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/document.h"
#include "formats/recording.h"
#include "statistics/eplb_yaml.h"

namespace wideload::formats {

struct PlacementFile {
  std::string format;  // "vLLM's mapping"
  Engine engine = Engine::kWideload;
  statistics::EplbConfig config;  // its planned_ep_size: the ranks that the file tells
  // Rows are numbered from 0 and the file does not say which layers of the model they are.
  bool numbers_rows = false;
};

// By ending: .yaml and .yml, .jsonl, .json, .pt, .npy, FILE.npz:ARRAY, FILE.safetensors:TENSOR (or
// FILE.npz and FILE.safetensors with one array). "-" is EPLB YAML from standard input.
// Errors, naming file, layer, slot and id: everything that the readers refuse, and a placement in
// which an expert has no slot.
PlacementFile ReadPlacementFile(const std::string& path);

// A placement whose rows are only numbered, with the numbers of `layers` when it has as many rows
// and lacks one of these; else as it is.
statistics::EplbConfig NumberedLike(statistics::EplbConfig config,
                                    const std::vector<int32_t>& layers);

// Whether a .jsonl, .json or .pt file holds a placement and no loads. Errors: those of parsing.
bool HoldsOnlyPlacement(const std::string& path);

// [layers, slots] of experts. Errors: kInvalid prefixed by `where`, with layer, slot and id.
SlotExperts PlacementOfArray(const NumberArray& array, const std::string& where);

// {"moe_layer_count", "layer_list": [{"layer_id", "device_count", "device_list": [{"device_id",
// "device_expert"}]}]}. Errors: kInvalid naming `source`, layer and device: counts that do not fit
// the lists, devices out of order or with another number of slots.
bool IsAscendMap(const Document& document);
// A document of that form as a placement; device by device, rank by rank.
PlacementFile AscendPlacement(const Document& document, const std::string& source);

// One line of JSON, layers in order as "0", "1", ... . Errors: kInvalid when config has no layers.
std::string FormatVllmMapping(const statistics::EplbConfig& config);
// Errors: kInvalid when config has no layers, or ep_size does not divide its slots.
std::string FormatAscendMap(const statistics::EplbConfig& config, int32_t ep_size);

}  // namespace wideload::formats
