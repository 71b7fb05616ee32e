#include "formats/vllm_files.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"
#include "formats/document.h"
#include "formats/json_rows.h"
#include "formats/placement_file.h"

namespace wideload::formats {
namespace {

using statistics::EplbConfig;
using statistics::LoadTable;

constexpr std::string_view kStatsType = "eplb_load_stats";
constexpr std::string_view kMetaType = "eplb_load_meta";
constexpr std::string_view kMappingType = "eplb_initial_mapping";
constexpr int32_t kMaxRanks = 1 << 20;

class JsonlReader {
 public:
  explicit JsonlReader(const std::string& source) : source_(source) {}

  void Line(std::string_view line, int64_t number) {
    const std::string where = fmt::format("{}:{}", source_, number);
    const Document record = ParseJsonDocument(line, where);
    const Document* type_found = record.Find("record_type");
    const std::string* type = type_found ? type_found->AsText() : nullptr;
    if (type == nullptr)
      Throw(ErrorKind::kInvalid, "{}: record_type is {}; it must be a text", where,
            type_found ? type_found->Describe() : "missing");
    if (*type != kStatsType && *type != kMetaType && *type != kMappingType) {
      skipped_.insert(*type);
      return;
    }
    IntegerOf(record, "version", 1, 1, where);
    if (*type == kStatsType) return Stats(record, where);
    if (*type == kMetaType) return Meta(record, where);
    Mapping(record, where);
  }

  VllmFile Finish() {
    VllmFile file{.recording = {}, .mapping = std::move(mapping_)};
    if (!slots_.layers.empty()) file.recording = MakeRecording();
    if (!file.recording && !file.mapping)
      Throw(ErrorKind::kInvalid, "{}: holds no record of type {} or {}{}", source_, kStatsType,
            kMappingType,
            skipped_.empty() ? "" : fmt::format("; found: {}", fmt::join(skipped_, ", ")));
    return file;
  }

 private:
  void Meta(const Document& record, const std::string& where) {
    num_ranks_ = static_cast<int32_t>(IntegerOf(record, "num_ranks", 1, kMaxRanks, where));
  }

  void Stats(const Document& record, const std::string& where) {
    const NumberArray& loads =
        ArrayOf(record, "expert_load", kTwoDimensions, "[layers, slots]", where);
    const LoadTable batch = TableOfArray(loads, where + ": expert_load");
    if (record.Find("num_ranks") != nullptr) Meta(record, where);
    SlotExperts map;
    if (record.Find("p2l_map") != nullptr) {
      const NumberArray& array =
          ArrayOf(record, "p2l_map", kTwoDimensions, "[layers, slots]", where);
      if (array.shape != loads.shape)
        Throw(ErrorKind::kInvalid, "{}: p2l_map is {}; expert_load is {}, so it must be that",
              where, ShapeText(array.shape), ShapeText(loads.shape));
      map = PlacementOfArray(array, where + ": p2l_map");
    }
    if (!slots_.layers.empty() &&
        (batch.layers.size() != slots_.layers.size() || batch.num_experts != slots_.num_experts ||
         map.empty() != last_map_.empty()))
      Throw(ErrorKind::kInvalid,
            "{}: counts {} layers of {} slots {} p2l_map; the records before have {} of {} {}",
            where, batch.layers.size(), batch.num_experts, map.empty() ? "without" : "with",
            slots_.layers.size(), slots_.num_experts, last_map_.empty() ? "without" : "with");
    steps_.push_back(IntegerOf(record, "step", 0, int64_t{1} << 52, where));
    AddRecord(batch, map, where);
  }

  // Each record is mapped by its own p2l_map: online rebalancing changes it.
  void AddRecord(const LoadTable& batch, SlotExperts map, const std::string& where) {
    Recording one{.source = where, .loads = batch};
    if (!map.empty()) TakeSlots(map, where + ": p2l_map", one);
    if (!experts_.layers.empty() && one.loads.num_experts != experts_.num_experts)
      Throw(ErrorKind::kInvalid, "{}: p2l_map places {} experts; the records before {}", where,
            one.loads.num_experts, experts_.num_experts);
    for (const auto& [layer, loads] : batch.layers) AddBatch(slots_, layer, loads);
    for (const auto& [layer, loads] : one.loads.layers) AddBatch(experts_, layer, loads);
    map_changed_ = map_changed_ || (!last_map_.empty() && map != last_map_);
    last_map_ = std::move(map);
  }

  void Mapping(const Document& record, const std::string& where) {
    if (mapping_)
      Throw(ErrorKind::kInvalid, "{}: a second record {}; one is allowed", where, kMappingType);
    EplbConfig config{.num_slots = static_cast<int32_t>(
                          IntegerOf(record, "num_slots", 1, statistics::kMaxEplbSlots, where))};
    const Document* found = record.Find("initial_global_assignments");
    const Document::Dict* layers = found ? found->AsDict() : nullptr;
    if (layers == nullptr || layers->empty())
      Throw(ErrorKind::kInvalid,
            "{}: initial_global_assignments is {}; it must be a dictionary of layers", where,
            found ? found->Describe() : "missing");
    for (const auto& [key, slots] : *layers) {
      const std::string at = fmt::format("{}: initial_global_assignments.{}", where, key);
      const NumberArray* ids = slots.AsArray();
      const bool is_number =
          !key.empty() && key.size() <= 4 &&
          std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
          std::stoi(key) < statistics::kMaxEplbLayers;
      if (!is_number || ids == nullptr || ids->rank() != 1 ||
          std::ssize(ids->values) != config.num_slots)
        Throw(ErrorKind::kInvalid,
              "{} is {}; it must be {} (num_slots) experts of a layer number below {}", at,
              slots.Describe(), config.num_slots, statistics::kMaxEplbLayers);
      if (!config.layers.try_emplace(std::stoi(key), IdsOf(*ids, statistics::kMaxEplbSlots - 1, at))
               .second)
        Throw(ErrorKind::kCorrupt, "{}: the layer is there twice", at);
    }
    const int64_t redundant =
        IntegerOf(record, "num_redundant_experts", 0, config.num_slots, where);
    CheckIds(config, config.num_slots - redundant, where);
    if (redundant != config.num_slots - config.num_experts())
      Throw(ErrorKind::kInvalid,
            "{}: num_redundant_experts is {}; num_slots {} less {} experts is {}", where, redundant,
            config.num_slots, config.num_experts(), config.num_slots - config.num_experts());
    mapping_ = std::move(config);
  }

  // The first id that the counts leave no room for. Errors: kInvalid naming layer, slot and id.
  static void CheckIds(const statistics::EplbConfig& config, int64_t num_experts,
                       const std::string& where) {
    for (const auto& [layer, slots] : config.layers)
      for (size_t s = 0; s < slots.size(); ++s)
        if (slots[s] >= num_experts)
          Throw(ErrorKind::kInvalid,
                "{}: layer {}, slot {} holds expert {}; num_slots {} less num_redundant_experts "
                "leaves experts 0 to {}",
                where, layer, s, slots[s], config.num_slots, num_experts - 1);
  }

  Recording MakeRecording() {
    Recording recording{.source = source_,
                        .format = "vLLM's load statistics (JSONL)",
                        .engine = Engine::kVllm,
                        .ep_size = num_ranks_,
                        .loads = std::move(experts_)};
    recording.slot_loads = std::move(slots_);
    recording.slot_expert = std::move(last_map_);
    recording.steps = std::move(steps_);
    if (map_changed_)
      recording.notes.emplace_back(
          "the placement changed between records; the layout shown is that of the last one");
    if (!skipped_.empty())
      recording.notes.push_back(
          fmt::format("records of other types are skipped: {}", fmt::join(skipped_, ", ")));
    return recording;
  }

  const std::string& source_;
  int32_t num_ranks_ = 0;
  LoadTable slots_, experts_;
  SlotExperts last_map_;
  bool map_changed_ = false;
  std::vector<int64_t> steps_;
  std::optional<EplbConfig> mapping_;
  std::set<std::string> skipped_;
};

}  // namespace

VllmFile ParseVllmJsonl(std::string_view text, const std::string& source) {
  JsonlReader reader(source);
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) reader.Line(line, number);
  }
  return reader.Finish();
}

std::string FormatVllmStatistics(const LoadTable& table, int32_t ep_size) {
  const size_t num_batches = table.batches.empty() ? 1 : table.batches.begin()->second.size();
  Json identity = Json::array();
  for (size_t l = 0; l < table.layers.size(); ++l) {
    Json row = Json::array();
    for (int32_t e = 0; e < table.num_experts; ++e) row.push_back(e);
    identity.push_back(std::move(row));
  }
  std::string text = DumpJson({{"record_type", kMetaType},
                               {"version", 1},
                               {"num_ranks", ep_size},
                               {"num_layers", table.layers.size()},
                               {"num_redundant_experts", 0}}) +
                     "\n";
  for (size_t i = 0; i < num_batches; ++i) {
    Json loads = Json::array();
    for (const auto& [layer, total] : table.layers) {
      loads.push_back(JsonRow(table.batches.empty() ? total : table.batches.at(layer)[i]));
    }
    text += DumpJson({{"record_type", kStatsType},
                      {"version", 1},
                      {"step", i},
                      {"num_ranks", ep_size},
                      {"expert_load", std::move(loads)},
                      {"p2l_map", identity}}) +
            "\n";
  }
  return text;
}

}  // namespace wideload::formats
