// `wideload config`: what can be configured, what a file sets, and what a run would use.
#include <fmt/format.h>

#include <iostream>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/generation_config.h"
#include "commands.h"
#include "config/disaggregated_file.h"
#include "config/option_page.h"
#include "config/option_schema.h"
#include "embedded_model.h"
#include "engine_flags.h"
#include "option_flags.h"
#include "runtime/sampling_choice.h"
#include "sampling_flags.h"

namespace wideload::apps {
namespace {

struct NoFlags {};

void PrintDocs(const NoFlags&) { std::cout << config::OptionPage(); }
void PrintSchema(const NoFlags&) { std::cout << DumpJson(config::OptionSchema(), 2) << "\n"; }

struct CheckFlags {
  std::vector<std::string> files;
  bool json = false;
};

const char* ClassName(config::KeyClass key_class) {
  switch (key_class) {
    case config::KeyClass::kEffective:
      return "effective";
    case config::KeyClass::kNoEffect:
      return "no effect";
    case config::KeyClass::kUnsupported:
      return "not supported yet";
  }
  return "";
}

// What one engine is told: a file, or one side of a file of `serve disaggregated`.
struct CheckedFile {
  std::string side;  // "": the whole file
  config::ConfigFile file;
};

std::vector<CheckedFile> ReadToCheck(const std::string& path) {
  const std::string text = ReadFile(path);
  const std::string source = path == "-" ? "standard input" : path;
  if (!config::HasServerSides(text, source)) return {{"", config::ParseConfigFile(text, source)}};
  config::DisaggregatedFile file = config::ParseDisaggregatedFile(text, source);
  return {{"context_servers", std::move(file.context.engine)},
          {"generation_servers", std::move(file.generation.engine)}};
}

Json JsonOf(const CheckedFile& checked) {
  const config::ConfigFile& file = checked.file;
  Json keys = Json::array();
  for (const config::JudgedSetting& judged : file.settings) {
    Json entry = {{"key", judged.setting.key},
                  {"line", judged.setting.line},
                  {"class", ClassName(judged.key_class)}};
    if (judged.key != judged.setting.key) entry["key_today"] = judged.key;
    if (judged.row != nullptr) entry["option"] = LongName(*judged.row);
    if (!judged.reason.empty()) entry["reason"] = judged.reason;
    keys.push_back(std::move(entry));
  }
  Json json = {{"file", file.source}, {"keys", keys}};
  if (!checked.side.empty()) json["side"] = checked.side;
  return json;
}

void Print(const CheckedFile& checked) {
  std::cout << checked.file.source << (checked.side.empty() ? "" : ": ") << checked.side << "\n";
  for (const config::JudgedSetting& judged : checked.file.settings) {
    const std::string why =
        judged.row != nullptr ? std::string(LongName(*judged.row)) : judged.reason;
    const std::string key = judged.key == judged.setting.key
                                ? judged.key
                                : fmt::format("{} (now {})", judged.setting.key, judged.key);
    std::cout << fmt::format("  {:17}  {:45}  {}\n", ClassName(judged.key_class), key, why);
  }
}

void CheckFiles(const CheckFlags& flags) {
  int code = 0;
  Json files = Json::array();
  for (const std::string& path : flags.files) {
    try {
      for (const CheckedFile& checked : ReadToCheck(path)) {
        if (flags.json)
          files.push_back(JsonOf(checked));
        else
          Print(checked);
      }
    } catch (const Error& e) {
      code = ReportFailure(e);  // the other files are looked at, too
    }
  }
  if (flags.json) std::cout << DumpJson(files, 2) << "\n";
  if (code != 0) EndSilently(code);
}

struct ShowFlags {
  EngineFlags engine;
  SamplingFlags sampling;
};

constexpr std::string_view kGenerationConfig = "generation_config.json";

// What sampling takes from the model's folder where neither command line nor file says it.
void ApplyGenerationConfig(const std::string& folder, SamplingFlags& flags) {
  const checkpoint::GenerationConfig file = checkpoint::ReadGenerationConfig(folder);
  const runtime::SamplingParams params = runtime::ChooseSampling(flags, file);
  const auto take = [&](const char* option, auto& member, auto value, bool is_in_file) {
    if (member.has_value() || !is_in_file) return;
    member = value;
    flags.sources[option] = fmt::format("{}/{}", folder, kGenerationConfig);
  };
  take("--temperature", flags.temperature, params.temperature,
       file.temperature.has_value() || file.do_sample.has_value());
  take("--top-k", flags.top_k, params.top_k, file.top_k.has_value());
  take("--top-p", flags.top_p, params.top_p, file.top_p.has_value());
  take("--min-p", flags.min_p, params.min_p, file.min_p.has_value());
  take("--repetition-penalty", flags.repetition_penalty, params.repetition_penalty,
       file.repetition_penalty.has_value());
}

template <class Flags>
void PrintValues(const Flags& flags) {
  for (const config::OptionRow& row : config::OptionTable()) {
    if (!config::IsOptionOf<Flags>(row)) continue;
    const std::string name(LongName(row));
    const auto source = flags.sources.find(name);
    const bool is_set = source != flags.sources.end();
    std::cout << fmt::format("{:29}  {:20}  {}\n", name,
                             is_set ? ValueText(row, flags) : DefaultText(row),
                             is_set ? source->second : "default");
  }
}

void Show(ShowFlags& flags) {
  ApplyConfig(flags.engine, &flags.sampling);
  ApplyGenerationConfig(flags.engine.model.empty() ? EmbeddedModelFolder() : flags.engine.model,
                        flags.sampling);
  PrintValues(flags.engine);
  PrintValues(flags.sampling);
}

}  // namespace

void AddConfig(Command program) {
  const Command group = program.Subcommand("config", "options, and the files that set them");
  group.RequireSubcommand();
  group.Subcommand("docs", "all options of the engine and of sampling, in Markdown")
      .Runs<NoFlags>(PrintDocs);
  group.Subcommand("schema", "a JSON schema of configuration files, for editors")
      .Runs<NoFlags>(PrintSchema);
  const Command check = group.Subcommand("check", "what each key of configuration files does");
  CheckFlags& check_flags = check.Runs<CheckFlags>(CheckFiles);
  check
      .Add("files", check_flags.files,
           "YAML files as --config takes them, of serve disaggregated, too; - is standard input")
      .Required();
  check.Add("--json", check_flags.json, "one JSON document instead of the text");
  const Command show =
      group.Subcommand("show", "the value of every option, and where it comes from");
  ShowFlags& show_flags = show.Runs<ShowFlags>(Show);
  AddEngineFlags(show, show_flags.engine);
  AddSamplingFlags(show, show_flags.sampling);
  AddOption(show, "--logprobs", show_flags.sampling);
}

}  // namespace wideload::apps
