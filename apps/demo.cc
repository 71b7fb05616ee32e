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

struct FirstRun;

struct DemoCommand {
  EngineFlags engine;
  std::string output = "wideload-demo";
  int64_t prompts = 48;

  void Run();
  FirstRun RunContiguous() const;
  void RunPlanned(const std::string& placement, const FirstRun& first,
                  std::vector<DomainBalance>& table) const;
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
  Demo(Session& session, const tokenizer::Tokenizer& tokenizer)
      : session_(session), tokenizer_(tokenizer), on_terminal_(::isatty(STDOUT_FILENO) == 1) {}

  DomainRun Serve(const DomainCounts& domain, const std::vector<DatasetRow>& rows);

 private:
  void Draw(const DomainCounts& domain, const DomainRun& run, bool at_end);

  Session& session_;
  const tokenizer::Tokenizer& tokenizer_;
  bool on_terminal_;
};

void Demo::Draw(const DomainCounts& domain, const DomainRun& run, bool at_end) {
  if (!on_terminal_ && !at_end) return;
  const double rate = static_cast<double>(run.num_tokens) / std::max(run.seconds, 1e-9);
  const std::string text = OneLine(tokenizer_.Decode(run.ids.front()), 48);
  std::cout << (on_terminal_ ? "\r\x1b[K" : "")
            << fmt::format("  {:14} {:6.0f} tokens/s  imbalance {:5.2f} {} | {}", domain.name, rate,
                           MeanImbalance(run.rows), domain.is_training ? "training" : "        ",
                           text)
            << (at_end ? "\n" : "") << std::flush;
}

DomainRun Demo::Serve(const DomainCounts& domain, const std::vector<DatasetRow>& rows) {
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
        Throw(ErrorKind::kRunFailed, "{}: {}", domain.name, event.error);
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

void PrintTable(const std::vector<DomainBalance>& table) {
  const auto cell = [](double value) { return fmt::format("{:10.2f}", value); };
  const auto print = [&](const DomainBalance& row) {
    std::cout << fmt::format("  {:14} {} {} {} {}{}\n", row.name, cell(row.contiguous),
                             cell(row.greedy_even), cell(row.greedy_optimal), cell(row.measured),
                             row.is_training ? "   training" : "");
  };
  std::cout
      << "\nBoth runs gave the same text, token by token: where an expert lies never changes "
         "what it computes. Routing is therefore\nthe same too, and (a), (b), (c) are computed "
         "from the counts of the first run; 'measured' is what the ranks did in\nthe second.\n"
         "  (a) contiguous experts\n  (b) 80 slots by TensorRT-LLM's greedy policy, an "
         "expert's tokens shared equally by its slots\n  (c) the same slots, optimal split of "
         "every batch\nImbalance of the ranks, (busiest - mean) / mean, mean over iterations "
         "and layers; 0 is perfect:\n\n"
      << fmt::format("  {:14} {:>10} {:>10} {:>10} {:>10}\n", "domain", "(a)", "(b)", "(c)",
                     "measured");
  for (const DomainBalance& row : table) print(row);
  DomainBalance rest = MeanOfServed(table);
  rest.name = "the other 7";
  print(rest);
  std::cout << fmt::format(
      "\nReading: a plan made from two kinds of text takes the imbalance of the other seven from "
      "{:.2f} to {:.2f} only, the optimal\nsplit of every batch to {:.2f}; what remains are "
      "experts "
      "that these texts use and the plan gave no second slot.\n\n",
      rest.contiguous, rest.greedy_even, rest.greedy_optimal);
}

// What the first run leaves for the second.
struct FirstRun {
  std::vector<std::vector<DatasetRow>> prompts;  // [domains]
  std::vector<DomainRun> runs;                   // [domains]
  std::vector<DomainCounts> counts;              // [domains]
};

FirstRun DemoCommand::RunContiguous() const {
  std::cout << fmt::format(
      "{} ranks serve nine kinds of text, one after the other. Every layer of the model has 64 "
      "experts; a router sends each\ntoken to 6. Experts are spread over the ranks, 8 to each: "
      "this "
      "is expert parallelism. All ranks wait for the busiest\nin every layer, so (busiest - mean) "
      "/ "
      "mean tokens, the imbalance, is time lost. Below: tokens per second, imbalance,\nthe text of "
      "one request.\n\nFirst run: (a) contiguous experts, rank 0 has experts 0-7, rank 1 has 8-15, "
      "...\n",
      engine.num_ranks);
  FirstRun first;
  Session session = StartSession(engine);
  const auto tokenizer = tokenizer::Tokenizer::FromFile(session.folder);
  RunRecorded(session, [&] {
    Demo demo(session, tokenizer);
    for (const char* domain : kDomains) {
      first.prompts.push_back(ReadDataset(
          fmt::format("{}/prompts/{}.jsonl", session.folder, domain), &tokenizer, prompts));
      DomainCounts& counts = first.counts.emplace_back();
      counts.name = domain;
      counts.is_training = first.counts.size() <= kNumTraining;
      counts.begin = session.engine->last_iteration().iteration + 1;
      first.runs.push_back(demo.Serve(counts, first.prompts.back()));
      counts.end = session.engine->last_iteration().iteration + 1;
    }
  });
  return first;
}

// Serves everything again on `placement` and fills what was measured. Errors: kRunFailed when a
// token differs.
void DemoCommand::RunPlanned(const std::string& placement, const FirstRun& first,
                             std::vector<DomainBalance>& table) const {
  std::cout << fmt::format(
      "\nSecond run: (c) {} slots. TensorRT-LLM's greedy policy placed the experts by the counts "
      "of "
      "the first two domains, the\nhottest in several slots; of each batch's counts the optimal "
      "split decides which slot takes a token.\n",
      kNumSlots);
  EngineFlags flags = engine;
  flags.statistic_path.clear();
  flags.placement = placement;
  Session session = StartSession(flags);
  const auto tokenizer = tokenizer::Tokenizer::FromFile(session.folder);
  Demo demo(session, tokenizer);
  for (size_t d = 0; d < first.counts.size(); ++d) {
    const DomainRun run = demo.Serve(first.counts[d], first.prompts[d]);
    table[d].measured = MeanImbalance(run.rows);
    if (run.ids != first.runs[d].ids)
      Throw(ErrorKind::kRunFailed,
            "{}: the second run gave other text than the first: a layout changed a result",
            first.counts[d].name);
  }
}

void DemoCommand::Run() {
  CatchInterrupts();
  if (engine.model.empty()) engine.model = EmbeddedModelFolder();
  std::filesystem::create_directories(output);
  engine.statistic_path = output + "/statistics";
  engine.replace_statistics = true;
  const std::string yaml_path = output + "/eplb.yaml";

  const FirstRun first = RunContiguous();
  const statistics::ExpertStatistics recorded =
      statistics::ReadStatistics(engine.statistic_path, {.sum_ranks = false});
  const statistics::EplbConfig plan =
      PlanFromTraining(recorded, first.counts, engine.num_ranks, kNumSlots);
  statistics::WriteEplbYaml(yaml_path, plan);
  std::vector<DomainBalance> table = BalanceOfDomains(recorded, first.counts, plan);
  RunPlanned(yaml_path, first, table);

  PrintTable(table);
  std::cout << fmt::format(
      "  statistics  {}  (wideload eplb report --expert_statistic_path {})\n"
      "  placement   {}  (wideload bench throughput --ep {} --placement {} ...)\n",
      engine.statistic_path, engine.statistic_path, yaml_path, engine.num_ranks, yaml_path);
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
