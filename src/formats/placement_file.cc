#include "formats/placement_file.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "formats/array_file.h"
#include "formats/sglang_dump.h"
#include "formats/vllm_files.h"

namespace wideload::formats {
namespace {

using statistics::EplbConfig;

EplbConfig ConfigOf(const SlotExperts& slot_expert) {
  EplbConfig config{.num_slots = static_cast<int32_t>(slot_expert.begin()->second.size())};
  config.layers = slot_expert;
  return config;
}

// Every expert that any layer places has a slot in each.
void CheckExperts(const EplbConfig& config, const std::string& source) {
  const int32_t num_experts = config.num_experts();
  for (const auto& [layer, slots] : config.layers) {
    std::vector<bool> seen(static_cast<size_t>(num_experts), false);
    for (const int32_t expert : slots) seen[static_cast<size_t>(expert)] = true;
    const auto missing = std::find(seen.begin(), seen.end(), false);
    if (missing != seen.end())
      Throw(ErrorKind::kInvalid,
            "{}: layer {} has no slot for expert {}; each expert from 0 to {} needs at least one",
            source, layer, missing - seen.begin(), num_experts - 1);
  }
}

PlacementFile OfDocument(NamedDocument document) {
  const std::string& source = document.source;
  if (IsAscendMap(document.content)) return AscendPlacement(document.content, source);
  SlotExperts map;
  if (const NumberArray* array = document.content.AsArray())
    map = PlacementOfArray(*array, source);
  else
    map = SglangPlacement(document);
  if (map.empty())
    Throw(ErrorKind::kInvalid,
          "{}: holds no placement: {}; allowed: SGLang's physical_to_logical_map, vLLM on Ascend's "
          "layer_list, an array [layers, slots] (of loads wideload eplb plan makes one)",
          source, document.content.Describe());
  return {.format = "SGLang's physical_to_logical_map",
          .engine = Engine::kSglang,
          .config = ConfigOf(map),
          .numbers_rows = true};
}

PlacementFile Read(const std::string& path) {
  if (path.ends_with(".jsonl")) {
    VllmFile file = ParseVllmJsonl(ReadFile(path), path);
    if (!file.mapping && !file.recording->slot_expert.empty())
      return {.format = "vLLM's load statistics (p2l_map of the last record)",
              .engine = Engine::kVllm,
              .config = ConfigOf(file.recording->slot_expert),
              .numbers_rows = true};
    if (!file.mapping)
      Throw(ErrorKind::kInvalid, "{}: holds no record of type eplb_initial_mapping and no p2l_map",
            path);
    return {.format = "vLLM's mapping (JSONL)",
            .engine = Engine::kVllm,
            .config = *std::move(file.mapping),
            .numbers_rows = true};
  }
  if (path.ends_with(".json")) return OfDocument({path, ParseJsonDocument(ReadFile(path), path)});
  if (path.ends_with(".pt"))
    return OfDocument({path, ParseTorchDocument(MappedFile(path).bytes(), path)});
  if (IsArrayFile(path))
    return {.format = "an array [layers, slots]",
            .engine = Engine::kVllm,
            .config = ConfigOf(PlacementOfArray(ReadArrayFile(path), path)),
            .numbers_rows = true};
  return {.format = "EPLB YAML",
          .engine = Engine::kTensorRtLlm,
          .config = statistics::ReadEplbYaml(path)};
}

}  // namespace

SlotExperts PlacementOfArray(const NumberArray& array, const std::string& where) {
  if (array.rank() != 2 || array.values.empty() || array.shape[0] > statistics::kMaxEplbLayers ||
      array.shape[1] > statistics::kMaxEplbSlots)
    Throw(ErrorKind::kInvalid, "{} is {}; it must be [layers, slots] of at most {} and {}", where,
          ShapeText(array.shape), statistics::kMaxEplbLayers, statistics::kMaxEplbSlots);
  SlotExperts map;
  const auto slots = static_cast<size_t>(array.shape[1]);
  for (size_t i = 0; i < array.values.size(); ++i) {
    const double id = array.values[i];
    if (!(id >= 0 && id < statistics::kMaxEplbSlots) || id != static_cast<int32_t>(id))
      Throw(ErrorKind::kInvalid, "{}[{}][{}] must be an expert in [0, {}]; it is {}", where,
            i / slots, i % slots, statistics::kMaxEplbSlots - 1, id);
    map[static_cast<int32_t>(i / slots)].push_back(static_cast<int32_t>(id));
  }
  return map;
}

PlacementFile ReadPlacementFile(const std::string& path) {
  PlacementFile file = Read(path);
  CheckExperts(file.config, path);
  return file;
}

EplbConfig NumberedLike(EplbConfig config, const std::vector<int32_t>& layers) {
  const bool fits = std::all_of(layers.begin(), layers.end(),
                                [&](int32_t layer) { return config.layers.contains(layer); });
  if (fits || config.layers.size() != layers.size()) return config;
  SlotExperts renamed;
  auto row = config.layers.begin();
  for (const int32_t layer : layers) renamed[layer] = std::move((row++)->second);
  config.layers = std::move(renamed);
  return config;
}

bool HoldsOnlyPlacement(const std::string& path) {
  if (IsDirectory(path)) return false;
  if (path.ends_with(".jsonl")) return !ParseVllmJsonl(ReadFile(path), path).recording;
  const bool is_json = path.ends_with(".json");
  if (!is_json && !path.ends_with(".pt")) return false;
  const Document document = is_json ? ParseJsonDocument(ReadFile(path), path)
                                    : ParseTorchDocument(MappedFile(path).bytes(), path);
  if (IsAscendMap(document)) return true;
  return IsSglangDump(document) && !HoldsSglangLoads(document);
}

std::string FormatVllmMapping(const EplbConfig& config) {
  if (config.layers.empty())
    Throw(ErrorKind::kInvalid, "a mapping lists the slots of each layer; the placement has none");
  // Written in the order of the layers, which that of JSON's keys as texts is not.
  std::string layers;
  size_t row = 0;
  for (const auto& [layer, slots] : config.layers) {
    layers += fmt::format("{}\"{}\": [{}]", row == 0 ? "" : ", ", row, fmt::join(slots, ", "));
    ++row;
  }
  return fmt::format(
      "{{\"record_type\": \"eplb_initial_mapping\", \"version\": 1, \"num_redundant_experts\": {}, "
      "\"num_slots\": {}, \"initial_global_assignments\": {{{}}}}}\n",
      config.num_slots - config.num_experts(), config.num_slots, layers);
}

}  // namespace wideload::formats
