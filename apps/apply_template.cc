// wideload apply-template: conversations to the text that a model sees, as JSON files.
#include <string>

#include "base/file.h"
#include "chat/template_cases.h"
#include "chat_flags.h"
#include "commands.h"
#include "embedded_model.h"
#include "file_flags.h"

namespace wideload::apps {
namespace {

constexpr uint64_t kMaxInputBytes = uint64_t{64} << 20;

struct ApplyTemplateOptions {
  std::string model;
  std::string chat_template;
  std::string input = "-";
  std::string output = "-";
};

void ApplyTemplate(const ApplyTemplateOptions& options) {
  // A template of its own file needs no model, and then no special tokens are known.
  const bool has_model = !options.model.empty() || options.chat_template.empty();
  const std::string folder =
      has_model ? options.model.empty() ? EmbeddedModelFolder() : options.model : "";
  CheckFiles({Reads("--model", folder), Reads("--chat-template", options.chat_template),
              Reads("--input", options.input), Writes("--output", options.output)});
  CheckWritable(options.output);
  const chat::ChatTemplate chat_template = OpenChatTemplate(folder, options.chat_template);
  const chat::Variables variables = has_model ? chat::SpecialTokens(folder) : chat::Variables();
  const std::string source = options.input == "-" ? "standard input" : options.input;
  const std::string text =
      chat::RenderCases(chat_template, variables, ReadFile(options.input, kMaxInputBytes), source,
                        {.now = LocalTime()});
  WriteFileWhole(options.output, text);
}

}  // namespace

void AddApplyTemplate(Command program) {
  const Command command = program.Subcommand(
      "apply-template", "turn conversations into the text that a model sees, by a chat template");
  ApplyTemplateOptions& options = command.Runs<ApplyTemplateOptions>(ApplyTemplate);
  command.Add("-m,--model", options.model,
              "model folder, for its template and special tokens (default: the embedded model)");
  AddChatTemplateFlag(command, options.chat_template);
  command.Add("-i,--input", options.input,
              "JSON list of {messages, tools, add_generation_prompt, extra, now}; - is standard "
              "input");
  command.Add("-o,--output", options.output,
              "JSON list of {text} or {error}; - is standard output");
}

}  // namespace wideload::apps
