// `wideload bench prepare-dataset`: rows for bench throughput and bench serve, as trtllm-bench
// prepares them.
#include <algorithm>
#include <cmath>
#include <optional>
#include <random>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "bench_commands.h"
#include "chat_flags.h"
#include "dataset.h"
#include "embedded_model.h"
#include "file_flags.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

// What trtllm-bench has before the name of a kind of rows.
struct DatasetFlags {
  std::string output;
  bool to_stdout = false;
  std::optional<int64_t> seed;

  void Run() const {}
};

// Where the tokens come from, and where rows go.
struct PrepareFlags {
  std::string model{}, output = "-";
  const BenchModel* bench_model = nullptr;  // what stands before
  const DatasetFlags* dataset = nullptr;

  // The folder and the file. Errors: kInvalid for what is told twice.
  void Resolve();
  const std::string& folder() const { return model; }
  tokenizer::Tokenizer tokenizer() const { return tokenizer::Tokenizer::FromFile(folder()); }
};

void PrepareFlags::Resolve() {
  if (!model.empty() && !bench_model->folder().empty())
    Throw(ErrorKind::kInvalid, "the model is {} by --model and {} by {}; give one of the two",
          model, bench_model->folder(), bench_model->flag());
  if (model.empty()) model = bench_model->folder();
  if (model.empty()) model = EmbeddedModelFolder();
  const bool has_file = !dataset->output.empty();
  if (has_file + dataset->to_stdout + (output != "-") > 1)
    Throw(ErrorKind::kInvalid, "where the rows go is told more than once; give one --output");
  if (has_file) output = dataset->output;
}

constexpr uint64_t kSeed = 420;  // trtllm-bench's

struct TokenNormDistCommand {
  PrepareFlags prepare;
  int64_t num_requests = 0, input_mean = 0, output_mean = 0;
  double input_stdev = 0, output_stdev = 0;
  uint64_t seed = kSeed;

  void Run();
};

struct PrepareChatCommand {
  PrepareFlags prepare;
  std::string chat_template, input = "-";
  std::optional<int64_t> output_len;

  void Run();
};

std::string RowLine(size_t index, const std::vector<int32_t>& ids, int64_t output_tokens) {
  return fmt::format("{{\"task_id\":{},\"input_ids\":[{}],\"output_tokens\":{}}}\n", index,
                     fmt::join(ids, ","), output_tokens);
}

void TokenNormDistCommand::Run() {
  prepare.Resolve();
  if (prepare.dataset->seed) {
    if (seed != kSeed) Throw(ErrorKind::kInvalid, "--random-seed is given twice");
    seed = static_cast<uint64_t>(*prepare.dataset->seed);
  }
  CheckFiles({Reads("--model", prepare.folder()), Writes("--output", prepare.output)});
  CheckWritable(prepare.output);
  const std::vector<int32_t> allowed = TextIds(prepare.tokenizer());
  std::mt19937_64 random(seed);
  const auto draw_length = [&random](int64_t mean, double stdev) {
    const double deviations = std::normal_distribution<double>()(random);
    return std::max<int64_t>(1, std::llround(static_cast<double>(mean) + stdev * deviations));
  };
  std::string lines;
  for (size_t row = 0; row < static_cast<size_t>(num_requests); ++row) {
    std::vector<int32_t> ids(static_cast<size_t>(draw_length(input_mean, input_stdev)));
    for (int32_t& id : ids)
      id = allowed[std::uniform_int_distribution<size_t>(0, allowed.size() - 1)(random)];
    lines += RowLine(row, ids, draw_length(output_mean, output_stdev));
  }
  WriteFileWhole(prepare.output, lines);
}

// A conversation without its last answer, and how long that is.
struct Turns {
  chat::ChatInput input;
  std::optional<int64_t> answer_tokens;
};

Turns ReadTurns(const JsonFields& fields, const std::string& place,
                const tokenizer::Tokenizer& tokenizer) {
  const Json& messages = fields.Required("messages");
  if (!messages.is_array() || messages.empty())
    fields.Refuse("messages", "a list of messages, not empty");
  Turns turns;
  for (size_t i = 0; i < messages.size(); ++i) {
    const JsonFields message(messages[i], place, fmt::format("messages[{}]", i));
    const std::string role = message.String("role"), content = message.String("content");
    if (i + 1 < messages.size() || role != "assistant")
      turns.input.messages.push_back(chat::Message(role, content));
    else
      turns.answer_tokens = std::max<int64_t>(1, std::ssize(tokenizer.Encode(content)));
  }
  return turns;
}

void PrepareChatCommand::Run() {
  prepare.Resolve();
  CheckFiles({Reads("--model", prepare.folder()), Reads("--chat-template", chat_template),
              Reads("--input", input), Writes("--output", prepare.output)});
  CheckWritable(prepare.output);
  const tokenizer::Tokenizer tokenizer = prepare.tokenizer();
  const chat::ChatTemplate opened = OpenChatTemplate(prepare.folder(), chat_template);
  const std::string text = ReadFile(input);
  std::string lines;
  size_t num_rows = 0;
  int64_t number = 0;
  for (size_t at = 0; at < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string place = fmt::format("{} line {}", input, number + 1);
    const Json json = ParseJson(line, place);
    Turns turns = ReadTurns(JsonFields(json, place), place, tokenizer);
    const std::optional<int64_t> length = output_len ? output_len : turns.answer_tokens;
    if (!length)
      Throw(ErrorKind::kInvalid,
            "{}: the last message is no assistant's, whose length would say how much is to be "
            "generated; give --output-len",
            place);
    turns.input.add_generation_prompt = true;
    turns.input.variables = chat::SpecialTokens(prepare.folder());
    const std::vector<int32_t> ids =
        tokenizer.EncodeParts(opened.Render(turns.input, {.now = LocalTime()}));
    if (ids.empty()) Throw(ErrorKind::kInvalid, "{}: the template makes no tokens of it", place);
    lines += RowLine(num_rows++, ids, *length);
  }
  if (num_rows == 0) Throw(ErrorKind::kInvalid, "{}: has no conversations", input);
  WriteFileWhole(prepare.output, lines);
}

void AddPrepareFlags(Command command, PrepareFlags& flags) {
  command.Add("-m,--model,--tokenizer", flags.model,
              "model folder, for its tokenizer (default: the embedded model)");
  command.Add("-o,--output", flags.output, "JSON lines to write; - is standard output")
      .ShowDefault();
}

void AddTokenNormDist(Command group, const PrepareFlags& before) {
  const Command command = group.Subcommand(
      "token-norm-dist", "random tokens; lengths of a normal distribution, at least 1");
  TokenNormDistCommand& prepare = command.Runs<TokenNormDistCommand>(&TokenNormDistCommand::Run);
  prepare.prepare = before;
  AddPrepareFlags(command, prepare.prepare);
  command.Add("--num-requests", prepare.num_requests, "rows").Range(1, 1e7).Required();
  command.Add("--input-mean", prepare.input_mean, "tokens of prompts").Range(1, 1e7).Required();
  command.Add("--input-stdev", prepare.input_stdev, "their standard deviation").Range(0, 1e7);
  command.Add("--output-mean", prepare.output_mean, "tokens to generate").Range(1, 1e7).Required();
  command.Add("--output-stdev", prepare.output_stdev, "their standard deviation").Range(0, 1e7);
  command.Add("--random-seed,--seed", prepare.seed, "of lengths and tokens").ShowDefault();
}

void AddPrepareChat(Command group, const PrepareFlags& before) {
  const Command command = group.Subcommand(
      "chat", "conversations through the model's chat template, up to their last answer");
  PrepareChatCommand& prepare = command.Runs<PrepareChatCommand>(&PrepareChatCommand::Run);
  prepare.prepare = before;
  AddPrepareFlags(command, prepare.prepare);
  AddChatTemplateFlag(command, prepare.chat_template);
  command.Add("-i,--input", prepare.input,
              "JSON lines {messages: [{role, content}, ...]}; - is standard input");
  command
      .Add("--output-len", prepare.output_len,
           "tokens to generate (default: as many as the last answer has)")
      .Positive();
}

}  // namespace

void AddBenchPrepareDataset(Command bench, const BenchModel& model) {
  const Command group =
      bench.Subcommand("prepare-dataset", "write rows for bench throughput and bench serve");
  group.RequireSubcommand();
  DatasetFlags& flags = group.Runs<DatasetFlags>(&DatasetFlags::Run);
  const PrepareFlags before{.bench_model = &model, .dataset = &flags};
  AddTokenNormDist(group, before);
  AddPrepareChat(group, before);
  const std::vector<std::string> all = {"token-norm-dist", "chat"};
  group.Add("-o,--output", flags.output, "JSON lines to write, as --output of the kind")
      .GroupOf(all);
  group.Add("--stdout", flags.to_stdout, "write them to standard output, as without --output")
      .GroupOf(all);
  group.Add("--random-seed", flags.seed, "as --random-seed of the kind")
      .NonNegative()
      .GroupOf({"token-norm-dist"});
}

}  // namespace wideload::apps
