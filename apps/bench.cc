// `wideload bench throughput`: runs the requests of a dataset at a given concurrency and reports
// under trtllm-bench's names.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "bench_commands.h"
#include "bench_output.h"
#include "commands.h"
#include "dataset.h"
#include "file_flags.h"
#include "interrupt.h"
#include "runtime/bench_report.h"
#include "runtime/iteration_log.h"
#include "sampling_flags.h"
#include "session.h"
#include "statistics/run_series.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

using Clock = std::chrono::steady_clock;

class BenchRun;

struct BenchCommand {
  static constexpr bool kCanUseGpus = true;
  EngineFlags engine;
  SamplingFlags sampling;
  BenchModel model;
  std::string dataset, output, report_json, report, iteration_log;
  int64_t concurrency = 64, num_requests = 0, warmup = 0;
  std::vector<int32_t> eos_ids;

  void Run(runtime::ProcessWorld* world);

  runtime::SamplingParams params;  // of every request; set by Check
  runtime::Request MakeRequest(const DatasetRow& row, size_t index) const;

 private:
  void CheckFlags() const;
  // Refuses what the engine would refuse, before the model is loaded. Returns the tokens of the
  // longest request.
  int64_t Check(const Session& session, const runtime::EngineOptions& options,
                const std::vector<DatasetRow>& rows);
  void Report(const Session& session, const std::vector<DatasetRow>& rows, const BenchRun& run,
              const tokenizer::Tokenizer* tokenizer) const;
  void ReportFailed(const std::vector<DatasetRow>& rows, const BenchRun& run) const;
};

// One pass over a dataset.
class BenchRun {
 public:
  BenchRun(const BenchCommand& command, Session& session, const std::vector<DatasetRow>& rows)
      : command_(command),
        session_(session),
        rows_(rows),
        timings_(rows.size()),
        ids_(rows.size()),
        errors_(rows.size()),
        series_(session.model->spec().moe.num_layers(), session.engine->options().layout.stage()) {}

  // False when it was interrupted; what ended by then counts.
  bool Run();
  double duration_s() const { return duration_s_; }
  const std::vector<std::vector<int32_t>>& ids() const { return ids_; }
  std::vector<runtime::RequestTiming> Finished() const;
  const std::string& iteration_log() const { return iteration_log_; }
  // Why a row's request failed; "" of the others.
  const std::string& error(size_t row) const { return errors_[row]; }
  int64_t num_failed() const {
    return std::ranges::count_if(errors_, [](const std::string& e) { return !e.empty(); });
  }
  int64_t num_iterations() const { return num_iterations_; }
  // Of this run alone.
  const runtime::ExchangeFigures& exchange() const { return exchange_; }
  const rebalance::BalancerFigures& balancing() const { return balancing_; }
  const runtime::PrefixFigures& prefixes() const { return prefixes_; }
  // Empty unless there is a --report.
  const statistics::RunSeries& series() const { return series_; }

 private:
  double Now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void SubmitNext();
  void Take(const runtime::Event& event);
  void NoteIteration(double seconds);
  void NoteRows(double seconds);
  void ReportProgress();
  rebalance::BalancerFigures Balancing() const {
    const rebalance::OnlineBalancer* balancer = session_.engine->balancer();
    return balancer != nullptr ? balancer->figures() : rebalance::BalancerFigures();
  }

  const BenchCommand& command_;
  Session& session_;
  const std::vector<DatasetRow>& rows_;
  std::vector<runtime::RequestTiming> timings_;
  std::vector<std::vector<int32_t>> ids_;
  std::vector<std::string> errors_;
  std::map<runtime::RequestId, size_t> row_of_;
  size_t next_row_ = 0;
  double duration_s_ = 0;
  int64_t num_iterations_ = 0;
  runtime::ExchangeFigures exchange_;
  rebalance::BalancerFigures balancing_;
  runtime::PrefixFigures prefixes_;
  std::string iteration_log_;
  statistics::RunSeries series_;
  int64_t fetched_slots_ = 0;           // up to the last iteration noted
  std::vector<int64_t> computed_rows_;  // [layers * ranks] of an iteration
  Clock::time_point start_;
  double last_progress_s_ = 0;
  runtime::ExchangeFigures exchange_then_;  // at the last progress, and the one below
  rebalance::BalancerFigures balancing_then_;
};

// A line every few seconds.
constexpr double kProgressSeconds = 5;

void BenchRun::ReportProgress() {
  if (Now() - last_progress_s_ < kProgressSeconds) return;
  last_progress_s_ = Now();
  const runtime::ExchangeFigures exchange = session_.engine->exchange_figures();
  const rebalance::BalancerFigures balancing = Balancing();
  const runtime::ExchangeFigures since = exchange - exchange_then_;
  LogInfo(
      "{} of {} requests started, {} running, {} iterations; since the last line: imbalance "
      "{:.3f}, balancedness {:.3f}, {} slots fetched",
      next_row_, rows_.size(), row_of_.size(), num_iterations_, since.MeanImbalance(),
      since.MeanBalancedness(), balancing.fetched_slots - balancing_then_.fetched_slots);
  exchange_then_ = exchange;
  balancing_then_ = balancing;
}

void BenchRun::SubmitNext() {
  runtime::Request request = command_.MakeRequest(rows_[next_row_], next_row_);
  timings_[next_row_] = {.prompt_tokens = static_cast<int64_t>(request.prompt.size()),
                         .start_s = Now()};
  row_of_[session_.engine->Submit(std::move(request))] = next_row_++;
}

void BenchRun::Take(const runtime::Event& event) {
  const size_t row = row_of_.at(event.id);
  runtime::RequestTiming& timing = timings_[row];
  if (event.finish == runtime::FinishReason::kError) {
    errors_[row] = event.error;
    row_of_.erase(event.id);
    return;
  }
  if (event.token >= 0) {
    if (ids_[row].empty()) timing.first_token_s = Now();
    ids_[row].push_back(event.token);
  }
  if (event.finish == runtime::FinishReason::kNone) return;
  timing.output_tokens = static_cast<int64_t>(ids_[row].size());
  timing.end_s = Now();
  row_of_.erase(event.id);
}

void BenchRun::NoteIteration(double seconds) {
  ++num_iterations_;
  if (!command_.iteration_log.empty())
    iteration_log_ += runtime::IterationLogLines(session_.engine->last_iteration(),
                                                 session_.engine->options(), seconds, Now());
  if (!command_.report.empty()) NoteRows(seconds);
}

void BenchRun::NoteRows(double seconds) {
  const runtime::Engine& engine = *session_.engine;
  const auto num_ranks = static_cast<size_t>(engine.options().layout.stage());
  const int64_t fetched = Balancing().fetched_slots;
  statistics::IterationFigures figures{.iteration = engine.last_iteration().iteration,
                                       .seconds = seconds,
                                       .fetched_slots = fetched - fetched_slots_};
  fetched_slots_ = fetched;
  computed_rows_.assign(static_cast<size_t>(series_.num_layers()) * num_ranks, 0);
  for (const runtime::GroupIteration& group : engine.last_iteration().groups) {
    figures.prompt_tokens += group.num_prompt_tokens;
    figures.generated_tokens += group.num_generated_tokens;
  }
  for (size_t r = 0; r < num_ranks; ++r) {
    const std::span<const int64_t> rows = engine.ComputedRows(static_cast<int32_t>(r));
    for (size_t layer = 0; layer < rows.size(); ++layer)
      computed_rows_[layer * num_ranks + r] = rows[layer];
  }
  series_.Add(figures, computed_rows_);
}

bool BenchRun::Run() {
  const runtime::ExchangeFigures before_run = session_.engine->exchange_figures();
  const rebalance::BalancerFigures balanced_before = Balancing();
  const runtime::PrefixFigures prefixes_before = session_.engine->scheduler().prefix_figures();
  exchange_then_ = before_run;
  balancing_then_ = balanced_before;
  fetched_slots_ = balanced_before.fetched_slots;
  start_ = Clock::now();
  while (next_row_ < rows_.size() || !session_.engine->idle()) {
    while (next_row_ < rows_.size() && static_cast<int64_t>(row_of_.size()) < command_.concurrency)
      SubmitNext();
    const Clock::time_point before = Clock::now();
    const int64_t last = session_.engine->last_iteration().iteration;
    for (const runtime::Event& event : session_.engine->Step()) Take(event);
    if (session_.engine->last_iteration().iteration > last)
      NoteIteration(std::chrono::duration<double>(Clock::now() - before).count());
    if (InterruptSignal() != 0) break;
    ReportProgress();
  }
  duration_s_ = Now();
  exchange_ = session_.engine->exchange_figures() - before_run;
  balancing_ = Balancing() - balanced_before;
  prefixes_ = session_.engine->scheduler().prefix_figures() - prefixes_before;
  return InterruptSignal() == 0;
}

std::vector<runtime::RequestTiming> BenchRun::Finished() const {
  std::vector<runtime::RequestTiming> finished;
  for (const runtime::RequestTiming& timing : timings_)
    if (timing.end_s > 0) finished.push_back(timing);
  return finished;
}

void WriteOutput(const std::string& path, const std::vector<DatasetRow>& rows, const BenchRun& run,
                 const tokenizer::Tokenizer* tokenizer) {
  std::string lines;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<int32_t>& ids = run.ids()[i];
    lines += fmt::format(R"({{"task_id":{},"ids":[{}])", rows[i].task_id, fmt::join(ids, ","));
    if (tokenizer) lines += ",\"text\":" + DumpJson(tokenizer->Decode(ids));
    if (!run.error(i).empty()) lines += ",\"error\":" + DumpJson(run.error(i));
    lines += "}\n";
  }
  WriteFileWhole(path, lines);
}

runtime::Request BenchCommand::MakeRequest(const DatasetRow& row, size_t index) const {
  runtime::Request request;
  request.prompt = row.ids;
  request.max_tokens = sampling.max_tokens.value_or(row.output_tokens);
  request.sampling = params;
  request.eos_ids = eos_ids;
  request.index = index;
  return request;
}

void BenchCommand::CheckFlags() const {
  if (sampling.ignore_eos && !eos_ids.empty())
    Throw(ErrorKind::kInvalid, "--eos-id and --ignore-eos contradict each other; give one");
  CheckFiles(engine, {Reads("--dataset", dataset), Writes("--output", output),
                      Writes("--report-json", report_json), Writes("--report", report),
                      Writes("--iteration-log", iteration_log)});
  for (const std::string& path : {output, report_json, report, iteration_log})
    if (!path.empty()) CheckWritable(path);
}

int64_t BenchCommand::Check(const Session& session, const runtime::EngineOptions& options,
                            const std::vector<DatasetRow>& rows) {
  for (const int32_t id : eos_ids)
    if (id < 0 || id >= session.config.vocab_size)
      Throw(ErrorKind::kInvalid, "--eos-id is {}; allowed: 0 to {}", id,
            session.config.vocab_size - 1);
  params = ResolveSampling(sampling, session);
  int64_t longest = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const runtime::Request request = MakeRequest(rows[i], i);
    RefuseInvalid(request, session, options,
                  fmt::format("{}: task_id {}", dataset, rows[i].task_id));
    longest = std::max(longest, static_cast<int64_t>(request.prompt.size()) + request.max_tokens);
  }
  return longest;
}

void BenchCommand::Report(const Session& session, const std::vector<DatasetRow>& rows,
                          const BenchRun& run, const tokenizer::Tokenizer* tokenizer) const {
  const std::vector<runtime::RequestTiming> finished = run.Finished();
  const runtime::BenchFigures figures = runtime::ComputeFigures(finished, run.duration_s());
  std::string summary = fmt::format(
      "{} of {} requests in {:.2f} s, {} iterations: {:.1f} output tokens/s, {:.1f} tokens/s with "
      "prompts",
      finished.size(), rows.size(), run.duration_s(), run.num_iterations(),
      figures.output_throughput_tok_s, figures.total_throughput_tok_s);
  if (session.engine->scheduler().has_prefix_cache())
    summary += fmt::format("\nprefix cache: {} of {} prompt tokens were there",
                           run.prefixes().num_hits, run.prefixes().num_queries);
  summary += "\n" + ExchangeText(session, run.exchange());
  if (session.engine->balancer() != nullptr)
    summary += "\n" + BalancingText(session, run.balancing());
  if (output == "-" || report_json == "-" || report == "-" || iteration_log == "-")
    LogInfo("{}", summary);
  else
    std::cout << summary << "\n";
  Json json = ReportJson(session, figures, static_cast<int64_t>(finished.size()));
  if (!model.name.empty() && !model.path.empty()) json["engine"]["model"] = model.name;
  json["exchange"] = ExchangeJson(session, run.exchange());
  if (session.engine->scheduler().has_prefix_cache())
    json["prefix_cache"] = {{"queried_tokens", run.prefixes().num_queries},
                            {"hit_tokens", run.prefixes().num_hits},
                            {"hit_rate", run.prefixes().hit_rate()}};
  if (session.engine->balancer() != nullptr)
    json["online_balancer"] = BalancingJson(session, run.balancing());
  if (!report_json.empty()) WriteFileWhole(report_json, DumpJson(json, 2) + "\n");
  if (!report.empty())
    WriteFileWhole(report, BenchPage(session, json["engine"]["model"], summary, run.series()));
  if (!iteration_log.empty()) WriteFileWhole(iteration_log, run.iteration_log());
  if (output.empty()) return;
  if (std::ssize(finished) + run.num_failed() == std::ssize(rows))
    WriteOutput(output, rows, run, tokenizer);
  else
    LogWarn("interrupted: {} was not written", output);
}

// After everything has been written: the others have their results.
void BenchCommand::ReportFailed(const std::vector<DatasetRow>& rows, const BenchRun& run) const {
  if (run.num_failed() == 0) return;
  size_t first = 0;
  while (run.error(first).empty()) ++first;
  Throw(ErrorKind::kRunFailed, "{}: {} of {} requests failed; the first, task_id {}: {}", dataset,
        run.num_failed(), rows.size(), rows[first].task_id, run.error(first));
}

void BenchCommand::Run(runtime::ProcessWorld* world) {
  TakeModelFolder(model.folder(), model.flag(), engine);
  if (eos_ids == std::vector<int32_t>{-1}) eos_ids.clear();
  CheckFlags();
  CatchInterrupts();
  engine.waits_for_plans = true;  // figures repeat
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  std::vector<DatasetRow> rows;
  Session session =
      StartSession(world, engine, [&](const Session& start, const runtime::EngineOptions& options) {
        if (tokenizer::Tokenizer::IsIn(start.folder))
          tokenizer =
              std::make_unique<tokenizer::Tokenizer>(tokenizer::Tokenizer::FromFile(start.folder));
        rows = ReadDataset(dataset, tokenizer.get(),
                           {.max_rows = num_requests, .max_tokens = options.max_seq_len});
        return Check(start, options, rows);
      });
  if (warmup > 0) {
    BenchCommand quiet = *this;
    quiet.iteration_log.clear();
    quiet.report.clear();
    const std::vector<DatasetRow> first(
        rows.begin(), rows.begin() + std::min<int64_t>(warmup, static_cast<int64_t>(rows.size())));
    bool complete = false;
    session.engine->SetWarmup(true);
    RunUnrecorded(session, [&] { complete = BenchRun(quiet, session, first).Run(); });
    session.engine->SetWarmup(false);
    session.engine->DropPrefixes();
    if (!complete) {
      LogWarn("interrupted in the warm-up; nothing was written");
      return;
    }
  }
  BenchRun run(*this, session, rows);
  RunRecorded(session, [&] { run.Run(); });
  Report(session, rows, run, tokenizer.get());
  ReportFailed(rows, run);
}

}  // namespace

void AddBench(Command program) {
  const Command group = program.Subcommand("bench", "measure serving");
  group.RequireSubcommand();
  AddBenchServe(group);
  const Command command =
      group.Subcommand("throughput", "run the requests of a dataset and report tokens per second");
  BenchCommand& bench = RunsOnRanks<BenchCommand>(command);
  AddBenchPrepareDataset(group, bench.model);
  const std::vector<std::string> have_models = {"throughput", "prepare-dataset"};
  group
      .Add("--model", bench.model.name,
           "name of the model in the report; its folder where there is no --model-path")
      .GroupOf(have_models);
  group.Add("--model-path", bench.model.path, "folder of the model").GroupOf(have_models);
  AddEngineFlags(command, bench.engine);
  AddBackendFlag(command);
  AddSamplingFlags(command, bench.sampling);
  command
      .Add("--dataset", bench.dataset,
           "JSON lines {task_id, prompt | input_ids, output_tokens}; - is standard input")
      .Required();
  command.Add("--concurrency", bench.concurrency, "requests in flight").Positive().ShowDefault();
  command.Add("--num-requests", bench.num_requests, "rows to run (default: all)").Positive();
  command.Add("--warmup", bench.warmup, "rows to run before, not counted").NonNegative();
  command.Add(
      "--eos-id", bench.eos_ids,
      "end a request at this token; -1: at none, output_tokens are generated (default: -1)");
  command.Add("--output", bench.output,
              "JSON lines {task_id, ids, text} of what was generated, in order of the dataset");
  command.Add("--report-json", bench.report_json, "the report under trtllm-bench's keys");
  command.Add(
      "--report", bench.report,
      "an HTML page of how the run went: imbalance over time, load of ranks, slots fetched, "
      "tokens");
  command.Add("--iteration-log", bench.iteration_log,
              "one line per iteration and rank, as TensorRT-LLM prints them");
}

}  // namespace wideload::apps
