// `wideload generate`: continues one prompt, streaming text to stdout.
#include <fmt/ranges.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/memory_plan.h"
#include "commands.h"
#include "file_flags.h"
#include "interrupt.h"
#include "option_flags.h"
#include "runtime/engine_loop.h"
#include "runtime/text_limits.h"
#include "sampling_flags.h"
#include "schema_flag.h"
#include "session.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

constexpr int64_t kDefaultMaxTokens = 128;

struct GenerateCommand {
  static constexpr bool kCanUseGpus = true;
  EngineFlags engine;
  SamplingFlags sampling;
  std::optional<std::string> prompt;
  std::string prompt_file;
  std::vector<std::string> stop;
  std::string json_schema;
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

// "bytes" tell tokens apart that are parts of one character.
Json LogprobJson(const tokenizer::Tokenizer& tokenizer, const runtime::TokenLogprob& logprob) {
  const std::string bytes(tokenizer.TokenBytes(logprob.id));
  Json json{{"id", logprob.id},
            {"token", bytes},  // U+FFFD where it is no whole character
            {"bytes", std::vector<uint8_t>(bytes.begin(), bytes.end())},
            {"logprob", logprob.logprob}};
  return json;
}

// Of a generated token: it, and the most likely ones.
Json LogprobsJson(const tokenizer::Tokenizer& tokenizer,
                  std::span<const runtime::TokenLogprob> logprobs) {
  Json json = LogprobJson(tokenizer, logprobs.front());
  json["top"] = Json::array();
  for (const runtime::TokenLogprob& logprob : logprobs.subspan(1))
    json["top"].push_back(LogprobJson(tokenizer, logprob));
  return json;
}

// They are kept until the end, where the document is written.
void CheckLogprobMemory(const runtime::Request& request) {
  if (request.sampling.num_logprobs < 0) return;
  const uint64_t bytes =
      SaturatingProduct({static_cast<uint64_t>(request.sampling.num_logprobs) + 1,
                         static_cast<uint64_t>(request.max_tokens), sizeof(runtime::TokenLogprob)});
  const checkpoint::MemoryPart parts[] = {{"log probabilities", bytes, "--logprobs"}};
  checkpoint::CheckMemory(parts, AvailableMemoryBytes());
}

std::string GenerateCommand::Text() const {
  if (prompt.has_value() == !prompt_file.empty())
    Throw(ErrorKind::kInvalid, "give either --prompt or --prompt-file (found {})",
          prompt ? "both" : "neither");
  const std::string wrong = runtime::InvalidStop(stop);
  if (!wrong.empty()) Throw(ErrorKind::kInvalid, "--stop {}", wrong);
  return prompt ? *prompt : ReadFile(prompt_file, kMaxPromptBytes);
}

runtime::Request GenerateCommand::MakeRequest(const std::string& text,
                                              const tokenizer::Tokenizer& tokenizer,
                                              const Session& session,
                                              const runtime::EngineOptions& options) const {
  const std::string place = prompt ? "--prompt" : prompt_file;
  const int64_t max_bytes = runtime::MaxTextBytes(tokenizer, options.max_seq_len);
  if (static_cast<int64_t>(text.size()) > max_bytes)
    Throw(ErrorKind::kInvalid,
          "{}: has {} bytes, which are more than {} tokens (max_seq_len); at most {} are allowed",
          place, text.size(), options.max_seq_len, max_bytes);
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
  request.eos_ids = ResolveEos(sampling, session, tokenizer);
  request.grammar = OpenJsonSchema(json_schema, tokenizer, session.config.vocab_size);
  RefuseInvalid(request, session, options, place);
  if (json) CheckLogprobMemory(request);
  return request;
}

// What one prompt gives: shows text as it comes and keeps the result.
class Output {
 public:
  Output(const GenerateCommand& command, const tokenizer::Tokenizer& tokenizer)
      : command_(command), tokenizer_(tokenizer) {}

  // Errors: kRunFailed with what the engine says of the request.
  void Run(runtime::Engine& engine, runtime::Request request);
  void Finish();

 private:
  void Take(runtime::Delta delta);
  void Show(const std::string& piece) const;
  void ShowLogprobs() const;

  const GenerateCommand& command_;
  const tokenizer::Tokenizer& tokenizer_;
  int64_t prompt_tokens_ = 0;
  std::string finish_reason_;
  std::string text_;  // with --json
  std::vector<int32_t> ids_;
  std::vector<std::vector<runtime::TokenLogprob>> logprobs_;  // of each token, with --json
};

void Output::Run(runtime::Engine& engine, runtime::Request request) {
  prompt_tokens_ = static_cast<int64_t>(request.prompt.size());
  runtime::EngineLoop loop(engine, &tokenizer_);
  runtime::RunJob(loop,
                  {.request = std::move(request),
                   .text = {.stop = command_.stop, .skip_special = !command_.show_special},
                   .deadline = {},
                   .sink = [this](runtime::Delta delta) { Take(std::move(delta)); }},
                  [] { return InterruptSignal() != 0; });
}

void Output::Take(runtime::Delta delta) {
  if (delta.is_last()) finish_reason_ = FinishReasonName(delta.finish);
  if (delta.token >= 0) ids_.push_back(delta.token);
  if (!command_.json && !delta.logprobs.empty())
    LogInfo("{}", DumpJson(LogprobsJson(tokenizer_, delta.logprobs)));
  if (command_.json && delta.token >= 0) logprobs_.push_back(std::move(delta.logprobs));
  Show(delta.text);
  if (command_.json) text_ += delta.text;
}

void Output::Show(const std::string& piece) const {
  if (command_.json) return;
  std::fwrite(piece.data(), 1, piece.size(), stdout);
  std::fflush(stdout);
}

void Output::Finish() {
  Show("\n");
  if (!command_.json) return;
  std::cout << fmt::format("{{\n  \"finish_reason\": \"{}\",\n  \"ids\": [{}],\n", finish_reason_,
                           fmt::join(ids_, ", "));
  ShowLogprobs();
  std::cout << fmt::format("  \"prompt_tokens\": {},\n  \"text\": {}\n}}\n", prompt_tokens_,
                           DumpJson(text_))
            << std::flush;
}

// One token at a time: as one document they would take many times the memory.
void Output::ShowLogprobs() const {
  if (logprobs_.empty() || logprobs_.front().empty()) return;
  std::cout << "  \"logprobs\": [";
  for (size_t i = 0; i < logprobs_.size(); ++i)
    std::cout << (i == 0 ? "\n    " : ",\n    ")
              << DumpJson(LogprobsJson(tokenizer_, logprobs_[i]));
  std::cout << "\n  ],\n";
}

void GenerateCommand::Run(runtime::ProcessWorld* world) {
  CheckFiles(engine, {Reads("--prompt-file", prompt_file), Reads("--json-schema", json_schema)});
  const std::string prompt_text = Text();
  CatchInterrupts();
  std::unique_ptr<const tokenizer::Tokenizer> tokenizer;
  runtime::Request request;
  Session session =
      StartSession(world, engine, [&](const Session& start, const runtime::EngineOptions& options) {
        tokenizer = std::make_unique<const tokenizer::Tokenizer>(
            tokenizer::Tokenizer::FromFile(start.folder));
        request = MakeRequest(prompt_text, *tokenizer, start, options);
        return static_cast<int64_t>(request.prompt.size()) + request.max_tokens;
      });
  Output output(*this, *tokenizer);
  RunRecorded(session, [&] { output.Run(*session.engine, std::move(request)); });
  output.Finish();
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
  AddJsonSchemaFlag(command, generate.json_schema);
  command.Add("--stop", generate.stop, "end before this text; may be given several times")
      .OneValueEach();
  AddOption(command, "--logprobs", generate.sampling);
  command.Add("--show-special-tokens", generate.show_special,
              "special tokens are part of the text, too");
  command.Add("--json", generate.json,
              "one JSON document: text, ids, finish_reason, prompt_tokens, logprobs");
}

}  // namespace wideload::apps
