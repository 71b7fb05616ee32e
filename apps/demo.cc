// `wideload demo`: nine kinds of text on eight ranks, and what placement and split do to the
// balance.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "command_line.h"
#include "commands.h"
#include "dataset.h"
#include "demo_balance.h"
#include "embedded_model.h"
#include "interrupt.h"
#include "session.h"
#include "statistics/eplb_yaml.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kDomains[] = {"docs_en", "prose_en", "dictionary_en", "c",      "python",
                                    "german",  "french",   "japanese",      "chinese"};
constexpr size_t kNumTraining = 2;
constexpr int32_t kNumSlots = 80;

struct DemoCommand {
  EngineFlags engine;
  std::string output = "wideload-demo";
  int64_t prompts = 48;

  void Run();
};

// What one domain's requests gave.
struct DomainRun {
  std::vector<std::vector<int32_t>> ids;
  int64_t num_tokens = 0;
  double seconds = 0;
  std::vector<IterationRows> rows;  // computed on each rank
};

// Text on one line of the terminal.
std::string OneLine(const std::string& text, size_t width) {
  std::string line;
  for (const char c : text) line += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  while (line.size() > width && line.size() > 1) line.erase(0, 1);
  while (!line.empty() && (static_cast<unsigned char>(line[0]) & 0xC0) == 0x80)
    line.erase(0, 1);  // the rest of a cut character
  return line;
}

class Demo {
 public:
  Demo(const DemoCommand& command, Session& session, const tokenizer::Tokenizer& tokenizer)
      : command_(command),
        session_(session),
        tokenizer_(tokenizer),
        on_terminal_(::isatty(STDOUT_FILENO) == 1) {}

  DomainRun Serve(const std::string& domain, const std::vector<DatasetRow>& rows);

 private:
  void Draw(const std::string& domain, const DomainRun& run, bool at_end);

  const DemoCommand& command_;
  Session& session_;
  const tokenizer::Tokenizer& tokenizer_;
  bool on_terminal_;
};

void Demo::Draw(const std::string& domain, const DomainRun& run, bool at_end) {
  if (!on_terminal_ && !at_end) return;
  const double rate = static_cast<double>(run.num_tokens) / std::max(run.seconds, 1e-9);
  const std::string text = OneLine(tokenizer_.Decode(run.ids.front()), 48);
  std::cout << (on_terminal_ ? "\r\x1b[K" : "")
            << fmt::format("  {:14} {:6.0f} tokens/s  imbalance {:5.2f}  | {}", domain, rate,
                           MeanImbalance(run.rows), text)
            << (at_end ? "\n" : "") << std::flush;
}

DomainRun Demo::Serve(const std::string& domain, const std::vector<DatasetRow>& rows) {
  runtime::Engine& engine = *session_.engine;
  DomainRun run;
  run.ids.resize(rows.size());
  std::map<runtime::RequestId, size_t> row_of;
  for (size_t i = 0; i < rows.size(); ++i) {
    runtime::Request request;
    request.prompt = rows[i].ids;
    request.max_tokens = rows[i].output_tokens;
    request.index = i;
    row_of[engine.Submit(std::move(request))] = i;
    run.num_tokens += static_cast<int64_t>(rows[i].ids.size());
  }
  const Clock::time_point start = Clock::now();
  while (!engine.idle()) {
    for (const runtime::Event& event : engine.Step()) {
      if (event.finish == runtime::FinishReason::kError)
        Throw(ErrorKind::kRunFailed, "{}: {}", domain, event.error);
      if (event.token < 0) continue;
      run.ids[row_of.at(event.id)].push_back(event.token);
      ++run.num_tokens;
    }
    IterationRows& iteration = run.rows.emplace_back();
    for (int32_t r = 0; r < engine.options().num_ranks; ++r) {
      const std::span<const int64_t> computed = engine.ComputedRows(r);
      iteration.resize(computed.size());
      for (size_t layer = 0; layer < computed.size(); ++layer)
        iteration[layer].push_back(static_cast<double>(computed[layer]));
    }
    run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    Draw(domain, run, false);
    if (InterruptSignal() != 0) Throw(ErrorKind::kRunFailed, "interrupted");
  }
  Draw(domain, run, true);
  return run;
}

std::string Cell(double value) { return fmt::format("{:10.2f}", value); }

void PrintTable(const std::vector<DomainBalance>& table, const DomainBalance& rest) {
  std::cout << "\nImbalance of the ranks, (busiest - mean) / mean, mean over iterations and "
               "layers; 0 is perfect.\n\n"
            << fmt::format("  {:14} {:>10} {:>10} {:>10} {:>10}\n", "domain", "(a)", "(b)", "(c)",
                           "measured");
  for (const DomainBalance& row : table)
    std::cout << fmt::format("  {:14} {} {} {} {}{}\n", row.name, Cell(row.contiguous),
                             Cell(row.greedy_even), Cell(row.greedy_optimal), Cell(row.measured),
                             row.is_training ? "   training" : "");
  std::cout << fmt::format("  {:14} {} {} {} {}\n\n", "the other 7", Cell(rest.contiguous),
                           Cell(rest.greedy_even), Cell(rest.greedy_optimal), Cell(rest.measured));
}

void DemoCommand::Run() {
  CatchInterrupts();
  engine.model = engine.model.empty() ? EmbeddedModelFolder() : engine.model;
  if (!FileExists(engine.model + "/prompts/docs_en.jsonl"))
    Throw(ErrorKind::kNotFound,
          "{}: has no prompts/docs_en.jsonl; the demo needs the prompts of the embedded model",
          engine.model);
  std::filesystem::create_directories(output);
  const std::string statistics_folder = output + "/statistics";
  const std::string yaml_path = output + "/eplb.yaml";
  engine.statistic_path = statistics_folder;
  engine.replace_statistics = true;

  std::cout << fmt::format(
      "{} ranks serve nine kinds of text, one after the other. Every layer of the model has 64 "
      "experts; a router sends each token to 6.\n"
      "Experts are spread over the ranks, 8 to each: this is expert parallelism. All ranks wait "
      "for the busiest in every layer,\n"
      "so (busiest - mean) / mean tokens, the imbalance, is time lost. Below: tokens per second, "
      "imbalance, the text of one request.\n\n"
      "First run: (a) contiguous experts, rank 0 has experts 0-7, rank 1 has 8-15, ...\n",
      engine.num_ranks);
  std::vector<DomainRun> first_runs;
  std::vector<std::vector<DatasetRow>> prompts_of;
  std::vector<DomainCounts> counts;
  {
    Session session = StartSession(engine);
    const auto tokenizer = tokenizer::Tokenizer::FromFile(session.folder);
    RunRecorded(session, [&] {
      Demo demo(*this, session, tokenizer);
      for (const char* domain : kDomains) {
        prompts_of.push_back(ReadDataset(fmt::format("{}/prompts/{}.jsonl", session.folder, domain),
                                         &tokenizer, prompts));
        const int64_t begin = session.engine->last_iteration().iteration + 1;
        first_runs.push_back(demo.Serve(domain, prompts_of.back()));
        counts.push_back({.name = domain,
                          .is_training = counts.size() < kNumTraining,
                          .begin = begin,
                          .end = session.engine->last_iteration().iteration + 1});
      }
    });
  }
  const statistics::ExpertStatistics recorded =
      statistics::ReadStatistics(statistics_folder, {.sum_ranks = false});
  const statistics::EplbConfig plan =
      PlanFromTraining(recorded, counts, engine.num_ranks, kNumSlots);
  statistics::WriteEplbYaml(yaml_path, plan);

  std::cout << fmt::format(
      "\nSecond run: (c) {} slots. TensorRT-LLM's greedy policy placed the experts by the counts "
      "of the first two domains, the hottest in\n"
      "several slots; of each batch's counts the optimal split decides which slot takes a token.\n",
      kNumSlots);
  EngineFlags second = engine;
  second.statistic_path.clear();
  second.placement = yaml_path;
  std::vector<DomainBalance> table = BalanceOfDomains(recorded, counts, plan);
  bool same_text = true;
  {
    Session session = StartSession(second);
    const auto tokenizer = tokenizer::Tokenizer::FromFile(session.folder);
    Demo demo(*this, session, tokenizer);
    RunRecorded(session, [&] {
      for (size_t d = 0; d < counts.size(); ++d) {
        const DomainRun run = demo.Serve(counts[d].name, prompts_of[d]);
        same_text = same_text && run.ids == first_runs[d].ids;
        table[d].measured = MeanImbalance(run.rows);
      }
    });
  }
  if (!same_text)
    Throw(ErrorKind::kRunFailed,
          "the second run gave other text than the first: same bits on every layout is broken");
  const DomainBalance rest = MeanOfServed(table);
  std::cout << "\nBoth runs gave the same text, token by token: where an expert lies never changes "
               "what it computes. Routing is therefore the\n"
               "same too, and (a), (b), (c) are computed from the counts of the first run; "
               "'measured' is what the ranks did in the second.\n"
               "  (a) contiguous experts    (b) 80 slots by TensorRT-LLM's greedy policy, an "
               "expert's tokens shared equally by its slots\n"
               "  (c) the same slots, optimal split of every batch\n";
  PrintTable(table, rest);
  std::cout << fmt::format(
      "Reading: a plan made from two kinds of text takes the imbalance of the other seven from "
      "{:.2f} to {:.2f}, the per-batch split to\n"
      "{:.2f}; what remains is experts that these texts use and the plan did not replicate.\n\n"
      "  statistics  {}  (wideload eplb report --expert_statistic_path {})\n  placement   {}  "
      "(wideload bench throughput --ep {} --placement {} ...)\n",
      rest.contiguous, rest.greedy_even, rest.greedy_optimal, statistics_folder, statistics_folder,
      yaml_path, engine.num_ranks, yaml_path);
}

}  // namespace

void AddDemo(CLI::App& app) {
  CLI::App* sub = app.add_subcommand(
      "demo", "nine kinds of text on eight ranks: expert parallelism and imbalance in two minutes");
  const auto command =
      std::make_shared<DemoCommand>();  // owners: the options and the callback of the command
  command->engine.num_ranks = 8;
  sub->add_option(Names("threads"), command->engine.threads,
                  "threads of a rank (default: cores / ranks)")
      ->check(CLI::Range(1, 64));
  sub->add_option(Names("kernels"), command->engine.kernels,
                  "auto, reference, avx2, avx512, avx512_bf16 or amx")
      ->capture_default_str();
  sub->add_option(Names("prompts"), command->prompts, "prompts of each domain")
      ->check(CLI::Range(1, 48))
      ->capture_default_str();
  sub->add_option(Names("output"), command->output,
                  "folder for the statistics and the placement file")
      ->capture_default_str();
  sub->callback([command] { command->Run(); });
}

}  // namespace wideload::apps
