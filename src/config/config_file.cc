#include "config/config_file.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "base/file.h"

namespace wideload::config {
namespace {

using Kind = YamlSetting::Kind;

constexpr size_t kShownLetters = 200;
constexpr size_t kMaxValueLetters = 4096;  // the longest path

// Booleans as the table of options writes them.
std::string Canonical(const YamlSetting& setting) {
  std::string lower = setting.text.substr(0, 8);
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return lower == "true" || lower == "false" ? lower : setting.text;
}

// Also TensorRT-LLM's -1 for sizes of the experts' layout.
bool IsNothing(const YamlSetting& setting) {
  return setting.kind == Kind::kNull || setting.kind == Kind::kEmptyMap ||
         (setting.text == "-1" &&
          (setting.key == "moe_tensor_parallel_size" || setting.key == "moe_expert_parallel_size"));
}

std::string Place(std::string_view source, const YamlSetting& setting) {
  return fmt::format("{}:{}: {}", source, setting.line, setting.key.substr(0, kShownLetters));
}

// Sets the row's member of Flags to the setting's value.
template <class Flags>
void Set(const OptionRow& row, std::string_view source, const YamlSetting& setting, Flags& flags) {
  const std::string name = Place(source, setting);
  if (setting.kind == Kind::kList && !row.is_list)
    Throw(ErrorKind::kInvalid, "{} is a list; one value is allowed", name);
  if (setting.text.size() > kMaxValueLetters)
    Throw(ErrorKind::kInvalid, "{} has {} letters; at most {} are allowed", name,
          setting.text.size(), kMaxValueLetters);
  std::string text = Canonical(setting);
  if (setting.kind == Kind::kList)
    std::erase_if(text, [](char c) { return c == '[' || c == ']' || c == ' '; });
  if (row.is_trtllm_fraction) {  // always with a point: without it is a size
    const Limits limits = {.min = 0, .max = 1, .min_excluded = true, .max_excluded = true};
    text = fmt::format("{:f}", ParseNumber<double>(name, text, limits));
  }
  SetOption(row, name, text, flags);
}

void CheckValue(const OptionRow& row, std::string_view source, const YamlSetting& setting) {
  EngineFlags engine;
  SamplingFlags sampling;
  if (IsOptionOf<EngineFlags>(row))
    Set(row, source, setting, engine);
  else
    Set(row, source, setting, sampling);
}

bool IsHarmless(const KnownKey& known, const YamlSetting& setting) {
  const std::vector<std::string_view> values = CommaWords(known.harmless);
  return std::ranges::find(values, Canonical(setting)) != values.end();
}

[[noreturn]] void RefuseUnknown(std::string_view source, const YamlSetting& setting,
                                const std::string& key) {
  Throw(ErrorKind::kInvalid, "{}:{}: unknown key \"{}\"; the nearest known key is {}", source,
        setting.line, setting.key.substr(0, kShownLetters), NearestKey(key));
}

JudgedSetting Judge(std::string_view source, const YamlSetting& setting) {
  const std::string today = KeyOfOldSpelling(setting.key);
  JudgedSetting judged{.setting = setting, .key = today.empty() ? setting.key : today};
  const KnownKey* const known = FindKnownKey(judged.key);
  judged.row = FindOptionOfKey(judged.key);
  const bool is_section = IsSectionOfKeys(judged.key);
  if (judged.row == nullptr && known == nullptr && !is_section)
    RefuseUnknown(source, setting, judged.key);
  if (IsNothing(setting)) {
    judged.key_class = KeyClass::kNoEffect;
    judged.reason = "nothing is set";
    judged.row = nullptr;
  } else if (judged.row != nullptr) {
    CheckValue(*judged.row, source, setting);
  } else if (known == nullptr) {
    Throw(ErrorKind::kInvalid, "{} is {}; a map is allowed", Place(source, setting),
          setting.text.substr(0, kShownLetters));
  } else {
    judged.key_class = IsHarmless(*known, setting) ? KeyClass::kNoEffect : known->key_class;
    judged.reason = known->reason;
  }
  return judged;
}

void RefuseTwoSpellings(const ConfigFile& file) {
  std::map<std::string_view, const YamlSetting*> seen;
  for (const JudgedSetting& judged : file.settings) {
    const auto [at, is_new] = seen.emplace(judged.key, &judged.setting);
    if (!is_new)
      Throw(ErrorKind::kInvalid, "{} is {}; line {} sets the same: {} is {}",
            Place(file.source, judged.setting), judged.setting.text.substr(0, kShownLetters),
            at->second->line, at->second->key, at->second->text.substr(0, kShownLetters));
  }
}

// The number that a key sets, if it does.
struct Size {
  const JudgedSetting* judged = nullptr;
  int64_t value = 1;
};
Size SizeOf(const ConfigFile& file, std::string_view key) {
  for (const JudgedSetting& judged : file.settings) {
    if (judged.key != key || IsNothing(judged.setting) || judged.setting.text == "-1") continue;
    const Limits limits = {.min = 1, .max = 1 << 20};
    return {&judged,
            ParseNumber<int64_t>(Place(file.source, judged.setting), judged.setting.text, limits)};
  }
  return {};
}

// What a file says of the stages and of the ranks that share a context, as far as it needs no
// model.
void CheckStages(const ConfigFile& file) {
  const Size stages = SizeOf(file, "pipeline_parallel_size");
  const Size context = SizeOf(file, "context_parallel_size");
  if (8 % context.value != 0)
    Throw(ErrorKind::kInvalid, "{} is {}; allowed are 1, 2, 4 and 8",
          Place(file.source, context.judged->setting), context.value);
  if (stages.judged == nullptr) return;  // the command line may have it
  for (const JudgedSetting& judged : file.settings) {
    if (judged.key != "pp_partition" || IsNothing(judged.setting)) continue;
    const auto count = 1 + std::ranges::count(judged.setting.text, ',');
    if (count != stages.value)
      Throw(ErrorKind::kInvalid,
            "{} is {}, {} numbers, and {} is {}; as many are allowed as there are stages",
            Place(file.source, judged.setting), judged.setting.text.substr(0, kShownLetters), count,
            stages.judged->setting.key, stages.value);
  }
  const Size batches = SizeOf(file, "pp_micro_batches");
  if (batches.value > stages.value)
    Throw(ErrorKind::kInvalid, "{} is {} and {} is {}; the first is at most the second",
          Place(file.source, batches.judged->setting), batches.value, stages.judged->setting.key,
          stages.value);
}

// TensorRT-LLM's rule: tensor_parallel_size = moe_tensor_parallel_size x moe_expert_parallel_size x
// moe_cluster_parallel_size, where all ranks of a stage share its attention or, with
// enable_attention_dp, have their own requests. Ranks that share a context have experts, too, so
// here context_parallel_size counts with tensor_parallel_size.
void CheckLayout(const ConfigFile& file) {
  const Size tensor = SizeOf(file, "tensor_parallel_size");
  const Size expert = SizeOf(file, "moe_expert_parallel_size");
  const Size moe_tensor = SizeOf(file, "moe_tensor_parallel_size");
  const Size cluster = SizeOf(file, "moe_cluster_parallel_size");
  const Size context = SizeOf(file, "context_parallel_size");
  if (tensor.judged == nullptr) return;
  const int64_t ranks = tensor.value * context.value;
  const std::string said =
      context.value == 1
          ? fmt::format("{} is {}", Place(file.source, tensor.judged->setting), tensor.value)
          : fmt::format("{} is {} and context_parallel_size {}, together {} ranks",
                        Place(file.source, tensor.judged->setting), tensor.value, context.value,
                        ranks);
  for (const Size& part : {expert, moe_tensor, cluster})
    if (part.judged != nullptr && ranks % part.value != 0)
      Throw(ErrorKind::kInvalid, "{}, {} is {}; the first must be a multiple of the second", said,
            part.judged->setting.key, part.value);
  if (expert.judged != nullptr && moe_tensor.judged != nullptr &&
      expert.value * moe_tensor.value * cluster.value != ranks)
    Throw(ErrorKind::kInvalid,
          "{}, moe_expert_parallel_size is {} and moe_tensor_parallel_size is {}; the first must "
          "be the product of the others",
          said, expert.value, moe_tensor.value);
}

}  // namespace

ConfigFile ParseConfigFile(std::string_view text, std::string_view source) {
  return JudgeSettings(ParseYamlSettings(text, source), source);
}

ConfigFile JudgeSettings(std::span<const YamlSetting> settings, std::string_view source) {
  ConfigFile file{.source = std::string(source)};
  for (const YamlSetting& setting : settings) file.settings.push_back(Judge(source, setting));
  RefuseTwoSpellings(file);
  CheckStages(file);
  CheckLayout(file);
  return file;
}

ConfigFile ReadConfigFile(const std::string& path) {
  return ParseConfigFile(ReadFile(path), path == "-" ? "standard input" : path);
}

std::vector<std::string> Notes(const ConfigFile& file) {
  std::vector<std::string> notes;
  std::vector<std::string_view> without_effect;
  for (const JudgedSetting& judged : file.settings) {
    const std::string place = Place(file.source, judged.setting);
    if (judged.key != judged.setting.key)
      notes.push_back(fmt::format("{} is an old spelling of {}", place, judged.key));
    if (judged.key_class == KeyClass::kNoEffect) without_effect.push_back(judged.setting.key);
    if (judged.key_class == KeyClass::kUnsupported)
      notes.push_back(fmt::format("{} is not supported yet; instead: {}", place, judged.reason));
  }
  if (!without_effect.empty())
    notes.push_back(fmt::format("{}: of no effect here, as config check tells: {}", file.source,
                                fmt::join(without_effect, ", ")));
  return notes;
}

void RefuseUnsupported(const ConfigFile& file) {
  for (const JudgedSetting& judged : file.settings)
    if (judged.key_class == KeyClass::kUnsupported)
      Throw(ErrorKind::kUnsupported,
            "{} is {}; this is not supported yet. With --allow-unsupported the run starts without "
            "it: {}",
            Place(file.source, judged.setting), judged.setting.text.substr(0, kShownLetters),
            judged.reason);
}

template <class Flags>
void ApplyConfigFile(const ConfigFile& file, Flags& flags) {
  for (const JudgedSetting& judged : file.settings) {
    if (judged.row == nullptr || !IsOptionOf<Flags>(*judged.row)) continue;
    const std::string name(LongName(*judged.row));
    if (flags.sources.contains(name)) continue;
    Set(*judged.row, file.source, judged.setting, flags);
    flags.sources[name] = Place(file.source, judged.setting);
  }
}
template void ApplyConfigFile(const ConfigFile&, EngineFlags&);
template void ApplyConfigFile(const ConfigFile&, SamplingFlags&);

}  // namespace wideload::config
