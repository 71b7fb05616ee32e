// `wideload generate`: continues one prompt, streaming text to stdout.
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "commands.h"
#include "interrupt.h"
#include "option_flags.h"
#include "runtime/text_stream.h"
#include "sampling_flags.h"
#include "session.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

constexpr int64_t kDefaultMaxTokens = 128;

struct GenerateCommand {
  EngineFlags engine;
  SamplingFlags sampling;
  std::optional<std::string> prompt;
  std::string prompt_file;
  std::vector<std::string> stop;
  bool show_special = false;
  bool json = false;

  void Run(runtime::ProcessWorld* world);

 private:
  // The text to continue. Errors: kInvalid for flags that contradict each other.
  std::string Text() const;
  // Errors: kInvalid when the engine would refuse it.
  runtime::Request MakeRequest(const std::string& text, const tokenizer::Tokenizer& tokenizer,
                               const Session& session, const runtime::EngineOptions& options) const;
};

Json LogprobsJson(const tokenizer::Tokenizer& tokenizer, const runtime::Event& event) {
  const auto entry = [&](const runtime::TokenLogprob& logprob) {
    const std::string bytes(tokenizer.TokenBytes(logprob.id));
    return Json{{"id", logprob.id},
                {"token", bytes},  // U+FFFD where it is no whole character
                {"bytes", std::vector<uint8_t>(bytes.begin(), bytes.end())},
                {"logprob", logprob.logprob}};
  };
  Json json = entry(event.logprobs.front());
  json["top"] = Json::array();
  for (size_t i = 1; i < event.logprobs.size(); ++i)
    json["top"].push_back(entry(event.logprobs[i]));
  return json;
}

std::string GenerateCommand::Text() const {
  if (prompt.has_value() == !prompt_file.empty())
    Throw(ErrorKind::kInvalid, "give either --prompt or --prompt-file (found {})",
          prompt ? "both" : "neither");
  for (const std::string& text : stop)
    if (text.empty())
      Throw(ErrorKind::kInvalid, "--stop is empty; it must have at least one character");
  return prompt ? *prompt : ReadFile(prompt_file, kMaxPromptBytes);
}

runtime::Request GenerateCommand::MakeRequest(const std::string& text,
                                              const tokenizer::Tokenizer& tokenizer,
                                              const Session& session,
                                              const runtime::EngineOptions& options) const {
  runtime::Request request;
  request.prompt = tokenizer.PrefixIds();
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  if (!ids.empty() && !request.prompt.empty() && request.prompt.back() == ids.front())
    LogWarn("the prompt begins with {}, which the tokenizer puts before it, too: it stands twice",
            tokenizer.TokenText(ids.front()));
  request.prompt.insert(request.prompt.end(), ids.begin(), ids.end());
  const int64_t room = options.max_seq_len - static_cast<int64_t>(request.prompt.size());
  request.max_tokens =
      sampling.max_tokens.value_or(std::clamp<int64_t>(room, 0, kDefaultMaxTokens));
  request.sampling = ResolveSampling(sampling, session);
  request.eos_ids = ResolveEos(sampling, session);
  RefuseInvalid(request, session, options, prompt ? "--prompt" : prompt_file);
  return request;
}

// One prompt on its way through the engine: shows text as it comes and keeps the result.
class Generation {
 public:
  Generation(const GenerateCommand& command, const tokenizer::Tokenizer& tokenizer,
             Session& session)
      : command_(command),
        tokenizer_(tokenizer),
        engine_(*session.engine),
        text_(tokenizer, command.stop, !command.show_special) {}

  // Errors: kRunFailed with what the engine says of the request.
  void Run(runtime::Request request);
  void Finish();

 private:
  void Take(const runtime::Event& event);
  void TakeToken(const runtime::Event& event);
  void Show(const std::string& piece) const;

  const GenerateCommand& command_;
  const tokenizer::Tokenizer& tokenizer_;
  runtime::Engine& engine_;
  runtime::TextStream text_;
  runtime::RequestId id_ = -1;
  Json result_;
};

void Generation::Run(runtime::Request request) {
  result_ = {{"prompt_tokens", request.prompt.size()},
             {"ids", Json::array()},
             {"finish_reason", "length"}};
  id_ = engine_.Submit(std::move(request));
  while (!engine_.idle()) {
    for (const runtime::Event& event : engine_.Step()) Take(event);
    if (InterruptSignal() != 0) engine_.Cancel(id_);
  }
}

void Generation::Take(const runtime::Event& event) {
  if (event.finish == runtime::FinishReason::kError)
    Throw(ErrorKind::kRunFailed, "{}", event.error);
  if (event.finish != runtime::FinishReason::kNone && !text_.stopped())
    result_["finish_reason"] = FinishReasonName(event.finish);
  if (event.token >= 0) TakeToken(event);
}

void Generation::TakeToken(const runtime::Event& event) {
  result_["ids"].push_back(event.token);
  if (!event.logprobs.empty()) {
    result_["logprobs"].push_back(LogprobsJson(tokenizer_, event));
    if (!command_.json) LogInfo("{}", DumpJson(result_["logprobs"].back()));
  }
  // The end-of-sequence token is no text.
  if (event.finish != runtime::FinishReason::kStop) Show(text_.Feed(event.token));
  if (!text_.stopped()) return;
  result_["finish_reason"] = "stop";
  engine_.Cancel(id_);
}

void Generation::Show(const std::string& piece) const {
  if (command_.json) return;
  std::fwrite(piece.data(), 1, piece.size(), stdout);
  std::fflush(stdout);
}

void Generation::Finish() {
  Show(text_.Flush() + "\n");
  if (!command_.json) return;
  result_["text"] = text_.text();
  std::cout << DumpJson(result_, 2) << std::endl;
}

void GenerateCommand::Run(runtime::ProcessWorld* world) {
  const std::string prompt_text = Text();
  CatchInterrupts();
  std::unique_ptr<const tokenizer::Tokenizer> tokenizer;
  runtime::Request request;
  Session session =
      StartSession(world, engine, [&](const Session& start, const runtime::EngineOptions& options) {
        tokenizer = std::make_unique<const tokenizer::Tokenizer>(
            tokenizer::Tokenizer::FromFile(start.folder));
        request = MakeRequest(prompt_text, *tokenizer, start, options);
      });
  Generation generation(*this, *tokenizer, session);
  RunRecorded(session, [&] { generation.Run(std::move(request)); });
  generation.Finish();
}

}  // namespace

void AddGenerate(Command program) {
  const Command command =
      program.Subcommand("generate", "continue a prompt; text goes to standard output as it comes");
  GenerateCommand& generate = RunsOnRanks<GenerateCommand>(command);
  AddEngineFlags(command, generate.engine);
  AddSamplingFlags(command, generate.sampling);
  command.Add("-p,--prompt", generate.prompt, "text to continue");
  command.Add("-f,--prompt-file", generate.prompt_file,
              "file with the text to continue; - is standard input");
  command.Add("--stop", generate.stop, "end before this text; may be given several times")
      .OneValueEach();
  AddOption(command, "--logprobs", generate.sampling);
  command.Add("--show-special-tokens", generate.show_special,
              "special tokens are part of the text, too");
  command.Add("--json", generate.json,
              "one JSON document: text, ids, finish_reason, prompt_tokens, logprobs");
}

}  // namespace wideload::apps
