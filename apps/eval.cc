// `wideload eval`: how well the model predicts local texts and answers.
#include <cmath>
#include <iostream>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "commands.h"
#include "evaluation/scoring.h"
#include "file_flags.h"
#include "interrupt.h"
#include "prompt_logits.h"
#include "sampling_flags.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

using evaluation::Prediction;

struct EvalFlags {
  EngineFlags engine;
  std::string input;
  std::string samples;
  int64_t limit = 0;
  bool json = false;
};

// A run of predictions, each of a row of the input.
class Evaluation {
 public:
  explicit Evaluation(const EvalFlags& flags) : flags_(flags) {}

  // Starts the session; `make` adds the predictions.
  void Start(runtime::ProcessWorld* world,
             const std::function<void(Evaluation&, const evaluation::Encoder&)>& make);
  void Add(size_t row, Prediction prediction) {
    rows_.push_back(row);
    ids_.push_back(std::move(prediction.ids));
    predictions_.push_back(std::move(prediction));
  }
  // The sum of log probabilities of each prediction, in the order of Add.
  std::vector<double> Run();

  size_t row(size_t i) const { return rows_[i]; }
  size_t num_targets(size_t i) const { return predictions_[i].targets.size(); }

 private:
  std::string NameOf(size_t i) const {
    return fmt::format("{} row {}", flags_.input, rows_[i] + 1);
  }

  const EvalFlags& flags_;
  std::unique_ptr<const tokenizer::Tokenizer> tokenizer_;
  std::optional<Session> session_;
  std::vector<size_t> rows_;
  std::vector<std::vector<int32_t>> ids_;  // of each prediction
  std::vector<Prediction> predictions_;    // without their ids
};

void Evaluation::Start(runtime::ProcessWorld* world,
                       const std::function<void(Evaluation&, const evaluation::Encoder&)>& make) {
  session_.emplace(StartSession(
      world, flags_.engine, [&](const Session& start, const runtime::EngineOptions& options) {
        tokenizer_ = std::make_unique<const tokenizer::Tokenizer>(
            tokenizer::Tokenizer::FromFile(start.folder));
        const std::vector<int32_t> eos = ResolveEos({}, start, *tokenizer_);
        const std::vector<int32_t>& prefix = tokenizer_->PrefixIds();
        if (prefix.empty() && eos.empty())
          Throw(ErrorKind::kUnsupported,
                "{}: it names no token that begins or ends a text, which the first token of a text "
                "is predicted from",
                start.folder);
        make(*this, {.tokenizer = *tokenizer_,
                     .prefix = prefix.empty() ? eos.front() : prefix.back(),
                     .max_ids = options.max_seq_len});
        return CheckPromptLogits(
            ids_, [this](size_t i) { return NameOf(i); }, start, options);
      }));
}

std::vector<double> Evaluation::Run() {
  WIDELOAD_CHECK(session_.has_value(), "Run of {} predictions before Start", predictions_.size());
  std::vector<std::vector<double>> values;
  for (const Prediction& prediction : predictions_) values.emplace_back(prediction.targets.size());
  RunPromptLogits(
      *session_, ids_, [this](size_t i) { return NameOf(i); },
      [&](size_t i, int64_t position, std::span<const float> logits) {
        const Prediction& prediction = predictions_[i];
        if (position < prediction.first) return;
        const auto target = static_cast<size_t>(position - prediction.first);
        const double value = evaluation::LogProbability(logits, prediction.targets[target]);
        if (!std::isfinite(value))
          Throw(ErrorKind::kRunFailed,
                "{}: the log probability of token {} is {} (--check-weights looks for weights that "
                "are no numbers)",
                NameOf(i), prediction.targets[target], value);
        values[i][target] = value;
      });
  std::vector<double> sums;
  for (const std::vector<double>& of_one : values) {
    double sum = 0;
    for (const double value : of_one) sum += value;
    sums.push_back(sum);
  }
  return sums;
}

// As many as --limit says.
template <class Rows>
void Limit(const EvalFlags& flags, Rows& rows) {
  if (flags.limit > 0 && std::ssize(rows) > flags.limit)
    rows.resize(static_cast<size_t>(flags.limit));
}

void CheckEvalFiles(const EvalFlags& flags) {
  CheckFiles(flags.engine, {Reads("--input", flags.input), Writes("--samples", flags.samples)});
  CatchInterrupts();
  if (!flags.samples.empty()) CheckWritable(flags.samples);
}

// The document, or its members one a line.
void ShowResults(const EvalFlags& flags, const Json& results) {
  if (flags.json) {
    std::cout << DumpJson(results, 2) << "\n" << std::flush;
    return;
  }
  for (const auto& [name, value] : results.items())
    std::cout << fmt::format("{:<20}{}\n", name,
                             value.is_string() ? value.get<std::string>() : DumpJson(value));
  std::cout << std::flush;
}

struct PerplexityCommand : EvalFlags {
  void Run(runtime::ProcessWorld* world);
};

void PerplexityCommand::Run(runtime::ProcessWorld* world) {
  CheckEvalFiles(*this);
  const std::string content = ReadFile(input);
  std::vector<std::string> documents = input.ends_with(".jsonl")
                                           ? evaluation::ParseDocuments(content, input)
                                           : std::vector<std::string>{content};
  if (content.empty()) Throw(ErrorKind::kInvalid, "{}: there is no text in it", input);
  Limit(*this, documents);
  Evaluation run(*this);
  std::vector<evaluation::TextScore> scores(documents.size());
  run.Start(world, [&](Evaluation& evaluation, const evaluation::Encoder& encoder) {
    for (size_t i = 0; i < documents.size(); ++i) {
      const std::vector<int32_t> ids = encoder.tokenizer.Encode(documents[i]);
      scores[i].size = evaluation::SizeOf(documents[i], std::ssize(ids));
      for (Prediction& window : evaluation::RollingWindows(ids, encoder.prefix, encoder.max_ids))
        evaluation.Add(i, std::move(window));
    }
  });
  const std::vector<double> sums = run.Run();
  for (size_t i = 0; i < sums.size(); ++i) scores[run.row(i)].log_probability += sums[i];
  evaluation::TextScore all;
  std::string lines;
  for (const evaluation::TextScore& score : scores) {
    all.size.tokens += score.size.tokens;
    all.size.bytes += score.size.bytes;
    all.size.words += score.size.words;
    all.log_probability += score.log_probability;
    lines += DumpJson({{"tokens", score.size.tokens},
                       {"bytes", score.size.bytes},
                       {"words", score.size.words},
                       {"loglikelihood", score.log_probability}}) +
             "\n";
  }
  if (!samples.empty()) WriteFileWhole(samples, lines);
  ShowResults(*this, {{"task", input},
                      {"documents", documents.size()},
                      {"tokens", all.size.tokens},
                      {"loglikelihood", all.log_probability},
                      {"perplexity", all.perplexity()},
                      {"word_perplexity", all.word_perplexity()},
                      {"byte_perplexity", all.byte_perplexity()},
                      {"bits_per_byte", all.bits_per_byte()}});
}

struct MultipleChoiceCommand : EvalFlags {
  std::string target_delimiter = " ";
  void Run(runtime::ProcessWorld* world);
};

Json ErrorJson(const evaluation::Accuracy& accuracy) {
  return accuracy.standard_error ? Json(*accuracy.standard_error) : Json(nullptr);
}

void MultipleChoiceCommand::Run(runtime::ProcessWorld* world) {
  CheckEvalFiles(*this);
  std::vector<evaluation::Question> questions = evaluation::ParseQuestions(ReadFile(input), input);
  Limit(*this, questions);
  Evaluation run(*this);
  run.Start(world, [&](Evaluation& evaluation, const evaluation::Encoder& encoder) {
    for (size_t i = 0; i < questions.size(); ++i)
      for (const std::string& choice : questions[i].choices)
        evaluation.Add(
            i, evaluation::AnswerOf(encoder, questions[i].context, target_delimiter + choice));
  });
  const std::vector<double> sums = run.Run();
  int64_t num_right = 0, num_right_by_length = 0;
  std::string lines;
  std::span<const double> left(sums);
  for (const evaluation::Question& question : questions) {
    const std::span<const double> of_choices = left.first(question.choices.size());
    left = left.subspan(question.choices.size());
    const evaluation::Choice choice = evaluation::Choose(question, of_choices);
    num_right += choice.most_likely == question.gold ? 1 : 0;
    num_right_by_length += choice.most_likely_by_length == question.gold ? 1 : 0;
    lines +=
        DumpJson({{"loglikelihoods", std::vector<double>(of_choices.begin(), of_choices.end())},
                  {"gold", question.gold},
                  {"acc", choice.most_likely == question.gold ? 1 : 0},
                  {"acc_norm", choice.most_likely_by_length == question.gold ? 1 : 0}}) +
        "\n";
  }
  if (!samples.empty()) WriteFileWhole(samples, lines);
  const auto accuracy = evaluation::AccuracyOf(num_right, std::ssize(questions));
  const auto by_length = evaluation::AccuracyOf(num_right_by_length, std::ssize(questions));
  ShowResults(*this, {{"task", input},
                      {"samples", questions.size()},
                      {"acc", accuracy.mean},
                      {"acc_stderr", ErrorJson(accuracy)},
                      {"acc_norm", by_length.mean},
                      {"acc_norm_stderr", ErrorJson(by_length)}});
}

void AddEvalFlags(Command command, EvalFlags& flags, const char* what) {
  AddEngineFlags(command, flags.engine);
  command.Add("-i,--input", flags.input, what).Required();
  command.Add("--limit", flags.limit, "rows to look at, from the first (default: all)").Positive();
  command.Add("--samples", flags.samples, "JSON lines with the figures of each row");
  command.Add("--json", flags.json, "one JSON document");
}

}  // namespace

void AddEval(Command program) {
  const Command eval =
      program.Subcommand("eval", "how well the model predicts local texts, as lm-eval defines it");
  eval.RequireSubcommand();
  const Command perplexity = eval.Subcommand("perplexity", "of texts: per token, word and byte");
  AddEvalFlags(perplexity, RunsOnRanks<PerplexityCommand>(perplexity),
               "text, or with the ending .jsonl rows {\"text\": ...}");
  const Command choice = eval.Subcommand(
      "multiple-choice", "how often the likeliest answer is right: acc, and acc_norm by length");
  MultipleChoiceCommand& command = RunsOnRanks<MultipleChoiceCommand>(choice);
  AddEvalFlags(choice, command,
               "JSON lines {\"context\": ..., \"choices\": [...], \"gold\": index}");
  choice.Add("--target-delimiter", command.target_delimiter, "text between context and answer")
      .ShowDefault();
}

}  // namespace wideload::apps
