#include "statistics/eplb_yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "eplb/placement/placement.h"

namespace wideload::statistics {
namespace {

constexpr uint64_t kMaxYamlBytes = uint64_t{1} << 30;
constexpr std::array<std::string_view, 5> kKeys = {"ep_size", "initial_global_assignments",
                                                   "layer_updates_per_iter", "mode", "num_slots"};

// Takes the parser's events one by one, so that duplicates are seen and a file is never held as a
// tree.
class EplbHandler : public YAML::EventHandler {
 public:
  explicit EplbHandler(std::string source) : source_(std::move(source)) {}

  EplbConfig Finish() {
    if (place_ != Place::kDone)
      Throw(ErrorKind::kCorrupt, "{}: is empty; it must be a map with num_slots", source_);
    const auto seen = [&](std::string_view key) {
      return std::find(seen_.begin(), seen_.end(), key) != seen_.end();
    };
    if (!seen("num_slots"))
      Throw(ErrorKind::kInvalid, "{}: num_slots is missing; it must be present", source_);
    return std::move(config_);
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (place_ != Place::kStart)
      Throw(ErrorKind::kCorrupt, "{}: holds more than one document; one is allowed", Where(mark));
  }
  void OnDocumentEnd() override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Throw(ErrorKind::kCorrupt, "{}: an alias (*name) is not allowed here", Where(mark));
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    OnScalar(mark, "", anchor, "");
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    RefuseAnchor(mark, tag, anchor);
    switch (place_) {
      case Place::kTopKey:
        return TopKey(mark, value);
      case Place::kTopValue:
        return TopValue(mark, value);
      case Place::kLayerKey:
        return LayerKey(mark, value);
      case Place::kSlots:
        return Slot(mark, value);
      default:
        Unexpected(mark, "\"" + value.substr(0, 40) + "\"");
    }
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    RefuseAnchor(mark, tag, anchor);
    if (place_ != Place::kLayerValue) Unexpected(mark, "a list");
    place_ = Place::kSlots;
  }
  void OnSequenceEnd() override { place_ = Place::kLayerKey; }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    RefuseAnchor(mark, tag, anchor);
    if (place_ == Place::kStart)
      place_ = Place::kTopKey;
    else if (place_ == Place::kTopValue && key_ == "initial_global_assignments")
      place_ = Place::kLayerKey;
    else
      Unexpected(mark, "a map");
  }
  void OnMapEnd() override { place_ = place_ == Place::kLayerKey ? Place::kTopKey : Place::kDone; }

 private:
  enum class Place { kStart, kTopKey, kTopValue, kLayerKey, kLayerValue, kSlots, kDone };

  std::string Where(const YAML::Mark& mark) const {
    return fmt::format("{}:{}", source_, mark.line + 1);
  }

  void RefuseAnchor(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) const {
    if (anchor != 0)
      Throw(ErrorKind::kCorrupt, "{}: an anchor (&name) is not allowed here", Where(mark));
    if (!tag.empty() && tag != "?")
      Throw(ErrorKind::kCorrupt, "{}: found a tag or quotes; plain values are allowed",
            Where(mark));
  }

  [[noreturn]] void Unexpected(const YAML::Mark& mark, const std::string& found) const {
    const std::string_view allowed =
        place_ == Place::kStart                                              ? "a map"
        : place_ == Place::kLayerValue                                       ? "a list"
        : place_ == Place::kTopValue && key_ == "initial_global_assignments" ? "a map"
        : place_ == Place::kTopKey || place_ == Place::kLayerKey             ? "a key"
                                                                             : "an integer";
    Throw(ErrorKind::kInvalid, "{}: found {}; {} is allowed here", Where(mark), found, allowed);
  }

  int32_t Integer(const YAML::Mark& mark, const std::string& text, std::string_view name,
                  int32_t max) const {
    int32_t value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > max)
      Throw(ErrorKind::kInvalid, "{}: {} is \"{}\"; it must be an integer in [0, {}]", Where(mark),
            name, text.substr(0, 40), max);
    return value;
  }

  void TopKey(const YAML::Mark& mark, const std::string& key) {
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end())
      Throw(ErrorKind::kInvalid, "{}: unknown key \"{}\"; allowed: {}", Where(mark),
            key.substr(0, 40), fmt::join(kKeys, ", "));
    if (std::find(seen_.begin(), seen_.end(), key) != seen_.end())
      Throw(ErrorKind::kCorrupt, "{}: duplicate key \"{}\"", Where(mark), key);
    seen_.push_back(key);
    key_ = key;
    place_ = Place::kTopValue;
  }

  void TopValue(const YAML::Mark& mark, const std::string& value) {
    if (key_ == "initial_global_assignments") Unexpected(mark, "\"" + value.substr(0, 40) + "\"");
    if (key_ == "num_slots") config_.num_slots = Integer(mark, value, key_, kMaxEplbSlots);
    if (key_ == "ep_size") config_.ep_size = Integer(mark, value, key_, kMaxEplbSlots);
    if (key_ == "layer_updates_per_iter")
      config_.layer_updates_per_iter = Integer(mark, value, key_, kMaxEplbLayers);
    if (key_ == "mode" && value != "standard")
      Throw(ErrorKind::kUnsupported, "{}: mode is \"{}\"; standard is supported", Where(mark),
            value.substr(0, 40));
    place_ = Place::kTopKey;
  }

  void LayerKey(const YAML::Mark& mark, const std::string& text) {
    const int32_t layer =
        Integer(mark, text, "a layer of initial_global_assignments", kMaxEplbLayers - 1);
    const auto [it, inserted] = config_.layers.try_emplace(layer);
    if (!inserted)
      Throw(ErrorKind::kCorrupt, "{}: duplicate key initial_global_assignments.{}", Where(mark),
            layer);
    slots_ = &it->second;
    layer_ = layer;
    place_ = Place::kLayerValue;
  }

  void Slot(const YAML::Mark& mark, const std::string& text) {
    if (slots_->size() == kMaxEplbSlots)
      Throw(ErrorKind::kInvalid, "{}: layer {} has more than {} slots", Where(mark), layer_,
            kMaxEplbSlots);
    slots_->push_back(
        Integer(mark, text, fmt::format("an expert of layer {}", layer_), kMaxEplbSlots - 1));
  }

  std::string source_;
  Place place_ = Place::kStart;
  std::string key_;
  std::vector<std::string> seen_;
  std::vector<int32_t>* slots_ = nullptr;
  int32_t layer_ = -1;
  EplbConfig config_;
};

void CheckLayers(const EplbConfig& config, const std::string& source) {
  const int32_t num_experts = config.num_experts();
  for (const auto& [layer, slots] : config.layers) {
    if (std::ssize(slots) != config.num_slots)
      Throw(ErrorKind::kInvalid,
            "{}: initial_global_assignments.{} has {} entries; it must have {} (num_slots)", source,
            layer, slots.size(), config.num_slots);
    std::vector<bool> seen(static_cast<size_t>(num_experts), false);
    for (const int32_t expert : slots) seen[static_cast<size_t>(expert)] = true;
    const auto missing = std::find(seen.begin(), seen.end(), false);
    if (missing != seen.end())
      Throw(ErrorKind::kInvalid,
            "{}: initial_global_assignments.{} has no slot for expert {}; each expert from 0 to {} "
            "needs at least one",
            source, layer, missing - seen.begin(), num_experts - 1);
  }
}

bool Contains(const std::vector<int32_t>& layers, int32_t layer) {
  return std::find(layers.begin(), layers.end(), layer) != layers.end();
}

constexpr std::string_view kPlannedEpSize = "# ep_size: ";

// The last line that is such a comment and nothing else.
std::optional<int32_t> PlannedEpSize(std::string_view text) {
  std::optional<int32_t> found;
  for (size_t at = text.find(kPlannedEpSize); at != std::string_view::npos;
       at = text.find(kPlannedEpSize, at + 1)) {
    if (at != 0 && text[at - 1] != '\n') continue;
    const std::string_view line = text.substr(at, text.find('\n', at) - at);
    int32_t value = 0;
    const auto [end, error] =
        std::from_chars(line.data() + kPlannedEpSize.size(), line.data() + line.size(), value);
    if (error == std::errc() && end == line.data() + line.size() && value >= 1 &&
        value <= kMaxEplbSlots)
      found = value;
  }
  return found;
}

}  // namespace

int32_t EplbConfig::num_experts() const {
  int32_t count = 0;
  for (const auto& [layer, slots] : layers)
    for (const int32_t expert : slots) count = std::max(count, expert + 1);
  return count;
}

void EplbConfig::SetLayer(int32_t layer, const eplb::Placement& placement) {
  std::vector<int32_t>& slots = layers[layer];
  slots.clear();
  for (const ExpertId expert : placement.slot_expert) slots.push_back(expert.value);
}

std::vector<int32_t> LayersOf(const EplbConfig& config) {
  std::vector<int32_t> layers;
  for (const auto& [layer, slots] : config.layers) layers.push_back(layer);
  return layers;
}

EplbConfig ParseEplbYaml(std::string_view text, const std::string& source) {
  EplbHandler handler(source);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    parser.HandleNextDocument(handler);
    parser.HandleNextDocument(handler);  // a second document is refused
    EplbConfig config = handler.Finish();
    CheckLayers(config, source);
    config.planned_ep_size = PlannedEpSize(text);
    return config;
  } catch (const YAML::Exception& e) {
    Throw(ErrorKind::kCorrupt, "{}:{}: not valid YAML: {}", source, e.mark.line + 1, e.msg);
  }
}

EplbConfig ReadEplbYaml(const std::string& path) {
  return ParseEplbYaml(ReadFile(path, kMaxYamlBytes), path);
}

std::string FormatEplbYaml(const EplbConfig& config) {
  std::string text;
  if (!config.layers.empty()) text += "initial_global_assignments:\n";
  for (const auto& [layer, slots] : config.layers)
    text += fmt::format("  {}: [{}]\n", layer, fmt::join(slots, ", "));
  text += fmt::format("layer_updates_per_iter: {}\nnum_slots: {}\n", config.layer_updates_per_iter,
                      config.num_slots);
  if (config.planned_ep_size)
    text += fmt::format("{}{}\n", kPlannedEpSize, *config.planned_ep_size);
  return text;
}

void WriteEplbYaml(const std::string& path, const EplbConfig& config) {
  WriteFileWhole(path, FormatEplbYaml(config));
}

void CheckEplbConfig(const EplbConfig& config, const EplbTarget& target,
                     const std::string& source) {
  eplb::ValidateSizes(target.num_experts, config.num_slots, target.ep_size, source);
  if (config.ep_size && *config.ep_size != target.ep_size)
    Throw(ErrorKind::kInvalid, "{}: ep_size is {}; it must be {} here", source, *config.ep_size,
          target.ep_size);
  if (config.layers.empty()) return;
  if (config.num_experts() != target.num_experts)
    Throw(ErrorKind::kInvalid,
          "{}: places {} experts; the model has {} (is it the file of another model?)", source,
          config.num_experts(), target.num_experts);
  for (const int32_t layer : target.layers)
    if (!config.layers.contains(layer))
      Throw(ErrorKind::kInvalid,
            "{}: initial_global_assignments has no layer {}; it must have each of the model's {} "
            "MoE layers",
            source, layer, target.layers.size());
  for (const auto& [layer, slots] : config.layers)
    if (!Contains(target.layers, layer) && !Contains(target.extra_layers, layer))
      Throw(ErrorKind::kInvalid,
            "{}: initial_global_assignments.{} is no MoE layer of the model; allowed: {}", source,
            layer, fmt::join(target.layers, ", "));
}

eplb::Placement LayerPlacement(const EplbConfig& config, int32_t layer, const EplbTarget& target,
                               const std::string& source) {
  if (config.layers.empty())
    return eplb::ContiguousPlacement(target.num_experts, config.num_slots, target.ep_size);
  const auto it = config.layers.find(layer);
  if (it == config.layers.end())
    Throw(ErrorKind::kInvalid, "{}: initial_global_assignments has no layer {}", source, layer);
  eplb::Placement placement{target.num_experts, target.ep_size, {}};
  for (const int32_t expert : it->second) placement.slot_expert.emplace_back(expert);
  eplb::ValidatePlacement(placement,
                          fmt::format("{}: initial_global_assignments.{}", source, layer));
  return placement;
}

}  // namespace wideload::statistics
