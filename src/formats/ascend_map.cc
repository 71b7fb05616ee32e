#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "formats/placement_file.h"

namespace wideload::formats {
namespace {

using statistics::EplbConfig;

// The list at `key`, with as many entries as the integer at `count_key` says.
const Document::List& CountedList(const Document& parent, std::string_view key,
                                  std::string_view count_key, const std::string& where) {
  const int64_t count = IntegerOf(parent, count_key, 1, statistics::kMaxEplbSlots, where);
  const Document* found = parent.Find(key);
  const Document::List* list = found ? found->AsList() : nullptr;
  if (list == nullptr || std::ssize(*list) != count)
    Throw(ErrorKind::kInvalid, "{}: {} is {}; it must be a list of {} ({})", where, key,
          !found ? "missing"
          : list ? fmt::format("of {} entries", list->size())
                 : found->Describe(),
          count, count_key);
  return *list;
}

// The slots of one layer, device after device.
std::vector<int32_t> LayerSlots(const Document& layer, size_t& num_devices,
                                const std::string& where) {
  std::vector<int32_t> slots;
  const Document::List& devices = CountedList(layer, "device_list", "device_count", where);
  if (num_devices != 0 && devices.size() != num_devices)
    Throw(ErrorKind::kInvalid, "{}: has {} devices; the layers before have {}", where,
          devices.size(), num_devices);
  num_devices = devices.size();
  size_t per_device = 0;
  for (size_t d = 0; d < devices.size(); ++d) {
    const std::string at = fmt::format("{}: device_list[{}]", where, d);
    const auto id = static_cast<int64_t>(d);
    IntegerOf(devices[d], "device_id", id, id, at);
    const Document* experts = devices[d].Find("device_expert");
    const NumberArray* ids = experts ? experts->AsArray() : nullptr;
    if (ids == nullptr || ids->rank() != 1 || ids->values.empty() ||
        (per_device != 0 && ids->values.size() != per_device))
      Throw(ErrorKind::kInvalid, "{}: device_expert is {}; it must be a list of {}experts", at,
            experts ? experts->Describe() : "missing",
            per_device == 0 ? "" : fmt::format("{} ", per_device));
    per_device = ids->values.size();
    const std::vector<int32_t> more =
        IdsOf(*ids, statistics::kMaxEplbSlots - 1, at + ": device_expert");
    slots.insert(slots.end(), more.begin(), more.end());
  }
  return slots;
}

}  // namespace

bool IsAscendMap(const Document& document) {
  return document.Find("moe_layer_count") != nullptr || document.Find("layer_list") != nullptr;
}

PlacementFile AscendPlacement(const Document& document, const std::string& source) {
  PlacementFile file{
      .format = "vLLM on Ascend's expert_map", .engine = Engine::kVllmAscend, .numbers_rows = true};
  const Document::List& layers = CountedList(document, "layer_list", "moe_layer_count", source);
  size_t num_devices = 0;
  for (size_t l = 0; l < layers.size(); ++l) {
    const std::string where = fmt::format("{}: layer_list[{}]", source, l);
    const auto id = static_cast<int32_t>(
        IntegerOf(layers[l], "layer_id", 0, statistics::kMaxEplbLayers - 1, where));
    std::vector<int32_t> slots = LayerSlots(layers[l], num_devices, where);
    if (l == 0) file.config.num_slots = static_cast<int32_t>(slots.size());
    if (std::ssize(slots) != file.config.num_slots)
      Throw(ErrorKind::kInvalid, "{}: has {} slots; the layers before have {}", where, slots.size(),
            file.config.num_slots);
    if (!file.config.layers.try_emplace(id, std::move(slots)).second)
      Throw(ErrorKind::kCorrupt, "{}: layer_id {} is there twice", where, id);
  }
  file.config.planned_ep_size = static_cast<int32_t>(num_devices);
  return file;
}

std::string FormatAscendMap(const EplbConfig& config, int32_t ep_size) {
  if (config.layers.empty() || ep_size < 1 || config.num_slots % ep_size != 0)
    Throw(
        ErrorKind::kInvalid,
        "an expert_map lists the slots of each device: ep_size is {}, with {} layers of {} slots; "
        "it needs layers, and an ep_size that divides the slots",
        ep_size, config.layers.size(), config.num_slots);
  const auto per_device = static_cast<int64_t>(config.num_slots / ep_size);
  Json layers = Json::array();
  for (const auto& [layer, slots] : config.layers) {
    Json devices = Json::array();
    for (int32_t d = 0; d < ep_size; ++d) {
      const auto begin = slots.begin() + d * per_device;
      devices.push_back(
          {{"device_id", d}, {"device_expert", std::vector<int32_t>(begin, begin + per_device)}});
    }
    layers.push_back({{"layer_id", layers.size()},
                      {"device_count", ep_size},
                      {"device_list", std::move(devices)}});
  }
  return DumpJson({{"moe_layer_count", config.layers.size()}, {"layer_list", std::move(layers)}}) +
         "\n";
}

}  // namespace wideload::formats
