#include "formats/json_rows.h"
#include "formats/sglang_dump.h"

namespace wideload::formats {
namespace {

using statistics::LoadTable;

// Rows of all layers; loads_of(layer) gives those of a layer that the table has.
template <class LoadsOf>
Json JsonLayers(const LoadTable& table, const LoadsOf& loads_of) {
  Json rows = Json::array();
  const int32_t num_layers = table.layers.empty() ? 0 : table.layers.rbegin()->first + 1;
  for (int32_t l = 0; l < num_layers; ++l)
    rows.push_back(table.layers.contains(l)
                       ? JsonRow(loads_of(l))
                       : JsonRow(std::vector<double>(static_cast<size_t>(table.num_experts), 0)));
  return rows;
}

}  // namespace

std::string FormatSglangCounts(const LoadTable& table, bool keep_steps) {
  Json counts;
  const bool has_steps = keep_steps && !table.batches.empty();
  const size_t num_steps = has_steps ? table.batches.begin()->second.size() : 1;
  CheckFilledTable(num_steps, table.layers, table.num_experts);
  if (has_steps) {
    counts = Json::array();
    for (size_t i = 0; i < num_steps; ++i)
      counts.push_back(JsonLayers(
          table, [&](int32_t layer) -> const auto& { return table.batches.at(layer)[i]; }));
  } else {
    counts = JsonLayers(
        table, [&](int32_t layer) -> const auto& { return table.layers.at(layer); });
  }
  return DumpJson({{"logical_count", counts}}) + "\n";
}

std::string FormatSglangPlacement(const statistics::EplbConfig& config) {
  CheckFilledTable(1, config.layers, config.num_slots);
  Json rows = Json::array();
  const int32_t num_layers = config.layers.empty() ? 0 : config.layers.rbegin()->first + 1;
  const int32_t num_experts = config.num_experts();
  for (int32_t l = 0; l < num_layers; ++l) {
    const auto it = config.layers.find(l);
    std::vector<int32_t> slots;
    for (int32_t s = 0; s < config.num_slots; ++s)
      slots.push_back(it == config.layers.end() ? s % num_experts
                                                : it->second[static_cast<size_t>(s)]);
    rows.push_back(std::move(slots));
  }
  return DumpJson({{"physical_to_logical_map", rows}}) + "\n";
}

}  // namespace wideload::formats
