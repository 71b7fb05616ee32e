#include "config/disaggregated_file.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "config/number.h"

namespace wideload::config {
namespace {

using Settings = std::vector<YamlSetting>;

constexpr std::string_view kTimeout = "cache_transceiver_config.kv_transfer_timeout_ms";
constexpr std::string_view kConditional = "conditional_disagg_config";
constexpr std::string_view kContextSide = "context_servers";
constexpr std::string_view kGenerationSide = "generation_servers";
constexpr int32_t kMaxInstances = 64;
constexpr int32_t kMaxRetries = 1000;

struct NotDone {
  std::string_view key;  // or the map that it lies in
  std::string_view instead;
};
constexpr std::array kNotDone = {
    NotDone{"perf_metrics_max_requests", "/metrics tells of all requests"},
    NotDone{"schedule_style", "the context server is asked first"},
    NotDone{"otlp_config", "no spans are sent"},
};

bool IsOrLiesIn(std::string_view key, std::string_view name) {
  return key == name || (key.starts_with(name) && key[name.size()] == '.');
}

std::string At(std::string_view source, const YamlSetting& setting) {
  constexpr size_t kQuotedLetters = 200;
  return fmt::format("{}:{}: {}", source, setting.line, setting.key.substr(0, kQuotedLetters));
}

bool IsNone(const YamlSetting& setting) {
  return setting.kind == YamlSetting::Kind::kNull || setting.text == "[]" || setting.text.empty();
}

template <class T>
T NumberOf(std::string_view source, const YamlSetting& setting, double min, double max) {
  return ParseNumber<T>(At(source, setting), setting.text, {.min = min, .max = max});
}

// The value's place among `names`. Errors: kInvalid, with all of them.
template <class Enum, size_t kCount>
Enum NamedValue(std::string_view source, const YamlSetting& setting,
                const std::array<std::string_view, kCount>& names) {
  const auto found = std::ranges::find(names, setting.text);
  if (found == names.end())
    Throw(ErrorKind::kInvalid, "{} is {}; supported: {}", At(source, setting),
          setting.text.substr(0, 40), fmt::join(names, ", "));
  return static_cast<Enum>(found - names.begin());
}

// Takes what is of the side alone, its key without the side's name; false: it is the engines'.
bool TakeOfSide(std::string_view source, const YamlSetting& whole, std::string_view key,
                ServerSide& side) {
  if (key == "num_instances") {
    side.num_instances = NumberOf<int32_t>(source, whole, 1, kMaxInstances);
  } else if (key == "urls") {
    if (!IsNone(whole))
      Throw(ErrorKind::kUnsupported,
            "{}: servers of other launches are not supported yet; num_instances engines run in "
            "this one, in processes of their own under mpirun",
            At(source, whole));
  } else if (key == "router.type") {
    side.router = NamedValue<ServerSide::Router>(
        source, whole,
        std::array<std::string_view, 3>{"round_robin", "load_balancing", "kv_cache_aware"});
  } else if (IsOrLiesIn(key, "router")) {
    if (IsNone(whole)) return true;
    Throw(ErrorKind::kUnsupported, "{} is not supported; of a router its type is",
          At(source, whole));
  } else {
    return false;
  }
  return true;
}

// Keys that stand beside both sides hold for each, unless it has its own.
void AddCommon(const Settings& common, Settings& own) {
  for (const YamlSetting& setting : common)
    if (std::ranges::none_of(own, [&](const YamlSetting& s) { return s.key == setting.key; }))
      own.push_back(setting);
}

// Takes the timeout out of a side's settings.
void TakeTimeout(std::string_view source, Settings& settings, std::optional<int64_t>& timeout) {
  for (const YamlSetting& setting : settings) {
    if (setting.key != kTimeout || IsNone(setting)) continue;
    const auto value = NumberOf<int64_t>(source, setting, 1, 1e9);
    if (timeout && *timeout != value)
      Throw(ErrorKind::kInvalid, "{} is {}, that of the other side {}; one holds for both",
            At(source, setting), value, *timeout);
    timeout = value;
  }
  std::erase_if(settings, [](const YamlSetting& setting) { return setting.key == kTimeout; });
}

// Takes what says which prompts are computed by generation servers; the map alone says 0.
void TakeConditional(std::string_view source, const YamlSetting& setting, DisaggregatedFile& file) {
  const std::string_view rest = std::string_view(setting.key).substr(kConditional.size());
  if (rest.empty() && setting.kind == YamlSetting::Kind::kEmptyMap) {
    file.max_local_prefill = 0;
  } else if (IsNone(setting)) {
    return;
  } else if (rest == ".max_local_prefill_length") {
    file.max_local_prefill = NumberOf<int64_t>(source, setting, 0, 1e9);
  } else if (rest.empty()) {
    Throw(ErrorKind::kInvalid, "{} is {}; a map is allowed", At(source, setting),
          setting.text.substr(0, 40));
  } else {
    Throw(ErrorKind::kInvalid, "{} is unknown; {} has max_local_prefill_length alone",
          At(source, setting), kConditional);
  }
}

// Whether a generation server is likely to have the beginning of a prompt is known by the router
// that gave it there, and it stays there only with a prefix cache.
void CheckConditional(std::string_view source, const ServerSide& generation) {
  if (generation.router != ServerSide::Router::kKvCacheAware)
    Throw(ErrorKind::kInvalid,
          "{}: {} needs generation_servers.router.type: kv_cache_aware, which knows what prompts "
          "began with before",
          source, kConditional);
  EngineFlags flags;
  ApplyConfigFile(generation.engine, flags);
  if (!flags.enable_prefix_caching)
    Throw(ErrorKind::kInvalid, "{} is false, and {} is for prompts whose blocks are reused",
          flags.sources.at("--enable-prefix-caching"), kConditional);
}

ConfigFile JudgeSide(std::string_view source, const Settings& settings) {
  ConfigFile file = JudgeSettings(settings, source);
  for (JudgedSetting& judged : file.settings)
    if (IsOrLiesIn(judged.key, "cache_transceiver_config"))
      judged.reason =
          "keys and values are copied within one process, or between two as kv_transfer says";
  return file;
}

}  // namespace

DisaggregatedFile ParseDisaggregatedFile(std::string_view text, std::string_view source) {
  DisaggregatedFile file;
  struct Side {
    std::string_view name;
    ServerSide* side;
    Settings settings = {};
    bool is_there = false;
  };
  std::array sides = {Side{kContextSide, &file.context}, Side{kGenerationSide, &file.generation}};
  Settings common;
  for (YamlSetting& setting : ParseYamlSettings(text, source)) {
    for (const NotDone& known : kNotDone)
      if (IsOrLiesIn(setting.key, known.key) && !IsNone(setting))
        Throw(ErrorKind::kUnsupported, "{} is not supported yet; instead: {}", At(source, setting),
              known.instead);
    auto* const side =
        std::ranges::find_if(sides, [&](const Side& s) { return IsOrLiesIn(setting.key, s.name); });
    if (side != sides.end()) {
      if (setting.key == side->name && !IsNone(setting))
        Throw(ErrorKind::kInvalid, "{} is {}; a map is allowed", At(source, setting),
              setting.text.substr(0, 40));
      side->is_there = true;
      if (setting.key == side->name) continue;
      std::string key = setting.key.substr(side->name.size() + 1);
      if (TakeOfSide(source, setting, key, *side->side)) continue;
      setting.key = std::move(key);
      side->settings.push_back(std::move(setting));
    } else if (IsOrLiesIn(setting.key, kConditional)) {
      TakeConditional(source, setting, file);
    } else if (setting.key == "hostname") {
      file.hostname = setting.text;
    } else if (setting.key == "kv_transfer") {
      file.kv_transfer = NamedValue<KvTransfer>(
          source, setting, std::array<std::string_view, 3>{"auto", "shared_memory", "network"});
    } else if (setting.key == "max_retries") {
      if (!IsNone(setting)) file.max_retries = NumberOf<int32_t>(source, setting, 0, kMaxRetries);
    } else if (setting.key == "port") {
      file.port = NumberOf<int32_t>(source, setting, 0, 65535);
    } else {
      common.push_back(std::move(setting));
    }
  }
  std::optional<int64_t> timeout;
  for (Side& side : sides) {
    if (!side.is_there)
      Throw(ErrorKind::kInvalid,
            "{}: {} is missing; \"{}: {{num_instances: 1}}\" is one engine with the defaults",
            source, side.name, side.name);
    AddCommon(common, side.settings);
    TakeTimeout(source, side.settings, timeout);
    side.side->engine = JudgeSide(source, side.settings);
    if (side.side == &file.generation && file.max_local_prefill)
      CheckConditional(source, *side.side);
  }
  file.transfer_timeout_ms = timeout.value_or(file.transfer_timeout_ms);
  return file;
}

bool HasServerSides(std::string_view text, std::string_view source) {
  return std::ranges::any_of(ParseYamlSettings(text, source), [](const YamlSetting& setting) {
    return IsOrLiesIn(setting.key, kContextSide) || IsOrLiesIn(setting.key, kGenerationSide);
  });
}

DisaggregatedFile ReadDisaggregatedFile(const std::string& path) {
  return ParseDisaggregatedFile(ReadFile(path), path == "-" ? "standard input" : path);
}

}  // namespace wideload::config
