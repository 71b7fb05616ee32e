// `wideload chat`: a conversation on the terminal, several turns, through the model's chat
// template.
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "chat/chat_template.h"
#include "chat_flags.h"
#include "commands.h"
#include "file_flags.h"
#include "interrupt.h"
#include "jinja/json_value.h"
#include "runtime/engine_loop.h"
#include "runtime/text_limits.h"
#include "sampling_flags.h"
#include "schema_flag.h"
#include "session.h"

namespace wideload::apps {
namespace {

struct ChatCommand {
  static constexpr bool kCanUseGpus = true;
  EngineFlags engine;
  SamplingFlags sampling;
  std::string system;
  std::string chat_template;
  std::string chat_template_kwargs;
  std::string json_schema;
  std::shared_ptr<grammar::TokenGrammar> grammar;  // of each answer; null: any text
  bool show_prompt = false;
  bool show_special = false;

  void Run(runtime::ProcessWorld* world);
  // What is said before the conversation begins, and the variables of the model in `folder`.
  chat::ChatInput Opening(const std::string& folder) const;
  // The prompt that `input` makes; shown if that is asked for.
  std::vector<int32_t> Prompt(const tokenizer::Tokenizer& tokenizer, const chat::ChatTemplate& chat,
                              const chat::ChatInput& input) const;
  // Generates the assistant's turn, streaming it; returns its text.
  std::string Answer(const Session& session, const tokenizer::Tokenizer& tokenizer,
                     runtime::EngineLoop& loop, std::vector<int32_t> prompt) const;
};

std::string ChatCommand::Answer(const Session& session, const tokenizer::Tokenizer& tokenizer,
                                runtime::EngineLoop& loop, std::vector<int32_t> prompt) const {
  runtime::Request request;
  const int64_t max_seq_len = session.engine->options().max_seq_len;
  const int64_t room = std::max<int64_t>(0, max_seq_len - static_cast<int64_t>(prompt.size()));
  request.prompt = std::move(prompt);
  request.max_tokens = std::min(sampling.max_tokens.value_or(room), room);
  request.sampling = ResolveSampling(sampling, session);
  request.eos_ids = ResolveEos(sampling, session, tokenizer);
  request.grammar = grammar;
  std::string answer;
  const auto show = [&answer](const runtime::Delta& delta) {
    answer += delta.text;
    std::cout << delta.text << std::flush;
  };
  runtime::RunJob(loop,
                  {.request = std::move(request),
                   .text = {.stop = {}, .skip_special = !show_special},
                   .deadline = {},
                   .sink = show},
                  [] { return InterruptSignal() != 0; });
  std::cout << std::endl;
  return answer;
}

chat::ChatInput ChatCommand::Opening(const std::string& folder) const {
  chat::ChatInput input{.add_generation_prompt = true, .variables = chat::SpecialTokens(folder)};
  const std::string source = "--chat-template-kwargs";
  if (!chat_template_kwargs.empty())
    chat::AddVariables(jinja::ParseJsonValue(chat_template_kwargs, source), source, input);
  if (!system.empty()) input.messages.push_back(chat::Message("system", system));
  return input;
}

std::vector<int32_t> ChatCommand::Prompt(const tokenizer::Tokenizer& tokenizer,
                                         const chat::ChatTemplate& chat,
                                         const chat::ChatInput& input) const {
  const auto parts = chat.Render(input, {.now = LocalTime()});
  std::vector<int32_t> ids = tokenizer.EncodeParts(parts);
  if (show_prompt) {
    LogInfo("prompt: {}", DumpJson(Json(chat::JoinedText(parts))));
    LogInfo("prompt ids: {}", DumpJson(Json(ids)));
  }
  return ids;
}

// False at the end of the input. Errors: kRunFailed for a line that the context cannot hold.
bool ReadMessage(std::string& line, int64_t max_bytes) {
  line.clear();
  for (char c = 0; std::cin.get(c);) {
    if (c == '\n') return true;
    if (static_cast<int64_t>(line.size()) == max_bytes)
      Throw(ErrorKind::kRunFailed, "a message of more than {} bytes; the context is full",
            max_bytes);
    line += c;
  }
  return !line.empty();
}

void ChatCommand::Run(runtime::ProcessWorld* world) {
  CheckFiles(engine,
             {Reads("--chat-template", chat_template), Reads("--json-schema", json_schema)});
  CatchInterrupts();
  std::unique_ptr<const tokenizer::Tokenizer> opened;
  std::unique_ptr<const chat::ChatTemplate> chat;
  chat::ChatInput input;
  Session session =
      StartSession(world, engine, [&](const Session& start, const runtime::EngineOptions& options) {
        opened = std::make_unique<const tokenizer::Tokenizer>(
            tokenizer::Tokenizer::FromFile(start.folder));
        chat = std::make_unique<const chat::ChatTemplate>(
            OpenChatTemplate(start.folder, chat_template));
        input = Opening(start.folder);
        ResolveSampling(sampling, start);
        grammar = OpenJsonSchema(json_schema, *opened, start.config.vocab_size);
        return options.max_seq_len;
      });
  const tokenizer::Tokenizer& tokenizer = *opened;
  LogInfo("type a message and press Enter; an empty line or Ctrl-D ends the conversation");
  const int64_t max_bytes = runtime::MaxTextBytes(tokenizer, session.engine->options().max_seq_len);
  const bool is_terminal = ::isatty(STDIN_FILENO) == 1;  // prompts are for people, not for pipes
  runtime::EngineLoop loop(*session.engine, &tokenizer);
  RunRecorded(session, [&] {
    std::string line;
    while (InterruptSignal() == 0) {
      if (is_terminal) std::cout << "> " << std::flush;
      if (!ReadMessage(line, max_bytes) || line.empty()) break;
      input.messages.push_back(chat::Message("user", line));
      const std::string answer = Answer(session, tokenizer, loop, Prompt(tokenizer, *chat, input));
      input.messages.push_back(chat::Message("assistant", answer));
    }
  });
  if (is_terminal) std::cout << std::endl;
}

}  // namespace

void AddChat(Command program) {
  const Command command = program.Subcommand(
      "chat", "a conversation on the terminal, through the model's chat template");
  ChatCommand& chat = RunsOnRanks<ChatCommand>(command);
  AddEngineFlags(command, chat.engine);
  AddSamplingFlags(command, chat.sampling);
  command.Add("--show-special-tokens", chat.show_special,
              "special tokens are part of the text, too");
  command.Add("--system", chat.system, "system message that opens the conversation");
  AddChatTemplateFlag(command, chat.chat_template);
  command.Add("--chat-template-kwargs", chat.chat_template_kwargs,
              "JSON object of further variables of the template: '{\"enable_thinking\": false}'");
  AddJsonSchemaFlag(command, chat.json_schema);
  command.Add("--show-prompt", chat.show_prompt,
              "show what the model sees, as text and as token ids, on standard error");
}

}  // namespace wideload::apps
