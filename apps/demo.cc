// `wideload demo`: nine kinds of text on eight ranks, and what placement and split do to the
// balance.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "commands.h"
#include "dataset.h"
#include "demo_balance.h"
#include "embedded_model.h"
#include "interrupt.h"
#include "option_flags.h"
#include "session.h"
#include "statistics/eplb_yaml.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

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
  void RunAgain(const EngineFlags& flags, const FirstRun& first, double DomainBalance::*measured,
                std::vector<DomainBalance>& table) const;
};

// What one domain's requests gave.
struct DomainRun {
  std::string name;
  std::vector<std::vector<int32_t>> ids;  // generated, per request
  int64_t num_tokens = 0;
  std::vector<IterationRows> rows;  // computed on each rank
};

// What the first run leaves for the second.
struct FirstRun {
  std::vector<std::vector<DatasetRow>> prompts;  // [domains]
  std::vector<DomainRun> runs;                   // [domains]
  std::vector<DomainCounts> counts;              // [domains]
  statistics::EplbConfig plan;                   // from the training domains
};

// The end of a text, on one line of the terminal.
std::string OneLine(const std::string& text, size_t width) {
  std::string line = text.size() > width ? text.substr(text.size() - width) : text;
  while (!line.empty() && (static_cast<unsigned char>(line[0]) & 0xC0) == 0x80)
    line.erase(0, 1);  // the rest of a character that was cut
  for (char& c : line)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  return line;
}

class Demo {
 public:
  Demo(Session& session, const tokenizer::Tokenizer& tokenizer)
      : session_(session), tokenizer_(tokenizer), on_terminal_(::isatty(STDOUT_FILENO) == 1) {}

  // Runs all requests of a domain; on a terminal its line moves meanwhile.
  DomainRun Serve(const std::string& domain, const std::vector<DatasetRow>& rows) const;
  // "  german           8386 tokens  1.00 / 0.73 / 0.60  | text"; at_end: for good. No speed: the
  // runs follow each other, and what else the machine does meets one of them.
  void Draw(const DomainRun& run, const std::string& balance, bool at_end) const;

 private:
  std::map<runtime::RequestId, size_t> SubmitAll(const std::vector<DatasetRow>& rows,
                                                 DomainRun& run) const;
  IterationRows ComputedRows() const;

  Session& session_;
  const tokenizer::Tokenizer& tokenizer_;
  bool on_terminal_;
};

void Demo::Draw(const DomainRun& run, const std::string& balance, bool at_end) const {
  if (!on_terminal_ && !at_end) return;
  const std::string text = OneLine(tokenizer_.Decode(run.ids.front()), 48);
  std::cout << (on_terminal_ ? "\r\x1b[K" : "")
            << fmt::format("  {:14} {:6} tokens  {:18} | {}", run.name, run.num_tokens, balance,
                           text)
            << (at_end ? "\n" : "") << std::flush;
}

std::map<runtime::RequestId, size_t> Demo::SubmitAll(const std::vector<DatasetRow>& rows,
                                                     DomainRun& run) const {
  std::map<runtime::RequestId, size_t> row_of;
  for (size_t i = 0; i < rows.size(); ++i) {
    runtime::Request request;
    request.prompt = rows[i].ids;
    request.max_tokens = rows[i].output_tokens;
    request.index = i;
    row_of[session_.engine->Submit(std::move(request))] = i;
    run.num_tokens += static_cast<int64_t>(rows[i].ids.size());
  }
  return row_of;
}

IterationRows Demo::ComputedRows() const {
  IterationRows rows;
  for (int32_t r = 0; r < session_.engine->options().layout.stage(); ++r) {
    const std::span<const int64_t> computed = session_.engine->ComputedRows(r);
    rows.resize(computed.size());
    for (size_t layer = 0; layer < computed.size(); ++layer)
      rows[layer].push_back(static_cast<double>(computed[layer]));
  }
  return rows;
}

DomainRun Demo::Serve(const std::string& domain, const std::vector<DatasetRow>& rows) const {
  runtime::Engine& engine = *session_.engine;
  DomainRun run;
  run.name = domain;
  run.ids.resize(rows.size());
  const std::map<runtime::RequestId, size_t> row_of = SubmitAll(rows, run);
  while (!engine.idle()) {
    for (const runtime::Event& event : engine.Step()) {
      if (event.finish == runtime::FinishReason::kError)
        Throw(ErrorKind::kRunFailed, "{}: {}", domain, event.error);
      if (event.token < 0) continue;
      run.ids[row_of.at(event.id)].push_back(event.token);
      ++run.num_tokens;
    }
    run.rows.push_back(ComputedRows());
    Draw(run, fmt::format("{:.2f}", MeanImbalance(run.rows)), false);
    if (InterruptSignal() != 0) Throw(ErrorKind::kRunFailed, "interrupted");
  }
  return run;
}

FirstRun DemoCommand::RunContiguous() const {
  FirstRun first;
  Session session = StartSession(nullptr, engine);
  const auto tokenizer = tokenizer::Tokenizer::FromFile(session.folder);
  const Demo demo(session, tokenizer);
  RunRecorded(session, [&] {
    for (const char* domain : kDomains) {
      first.prompts.push_back(
          ReadDataset(fmt::format("{}/prompts/{}.jsonl", session.folder, domain), &tokenizer,
                      {.max_rows = prompts, .max_tokens = session.engine->options().max_seq_len}));
      DomainCounts& counts = first.counts.emplace_back();
      counts.name = domain;
      counts.is_training = first.counts.size() <= kNumTraining;
      counts.begin = session.engine->last_iteration().iteration + 1;
      first.runs.push_back(demo.Serve(domain, first.prompts.back()));
      counts.end = session.engine->last_iteration().iteration + 1;
      const statistics::ExpertStatistics recorded = session.recorder->Statistics();
      if (first.counts.size() == kNumTraining)
        first.plan = PlanFromTraining(recorded, first.counts, engine.ep, kNumSlots);
      std::string balance = fmt::format("{:.2f}  training", MeanImbalance(first.runs.back().rows));
      if (!counts.is_training) {
        const DomainBalance row = BalanceOfDomains(recorded, {counts}, first.plan).front();
        balance = fmt::format("{:.2f} / {:.2f} / {:.2f}", row.contiguous, row.greedy_even,
                              row.greedy_optimal);
      }
      demo.Draw(first.runs.back(), balance, true);
    }
  });
  return first;
}

// Serves everything again and fills what was measured. Errors: kRunFailed when a token differs.
void DemoCommand::RunAgain(const EngineFlags& flags, const FirstRun& first,
                           double DomainBalance::*measured,
                           std::vector<DomainBalance>& table) const {
  Session session = StartSession(nullptr, flags);
  const auto tokenizer = tokenizer::Tokenizer::FromFile(session.folder);
  const Demo demo(session, tokenizer);
  for (size_t d = 0; d < first.counts.size(); ++d) {
    DomainRun run;
    RunUnrecorded(session, [&] { run = demo.Serve(first.counts[d].name, first.prompts[d]); });
    table[d].*measured = MeanImbalance(run.rows);
    demo.Draw(run, fmt::format("{:.2f}", table[d].*measured), true);
    if (run.ids != first.runs[d].ids)
      Throw(ErrorKind::kRunFailed,
            "{}: this run gave other text than the first: a layout changed a result", run.name);
  }
}

void PrintTable(const std::vector<DomainBalance>& table) {
  const auto print = [](const DomainBalance& row) {
    std::cout << fmt::format("  {:14} {:10.2f} {:10.2f} {:10.2f} {:10.2f} {:10.2f}{}\n", row.name,
                             row.contiguous, row.greedy_even, row.greedy_optimal, row.measured,
                             row.online, row.is_training ? "   training" : "");
  };
  std::cout << fmt::format("  {:14} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "imbalance", "(a)",
                           "(b)", "(c)", "measured", "(d) online");
  for (const DomainBalance& row : table) print(row);
  DomainBalance rest = MeanOfServed(table);
  rest.name = "the other 7";
  print(rest);
  std::cout << fmt::format(
      R"(
Reading: a plan made from two kinds of text takes the imbalance of the other seven from {:.2f} to
{:.2f} only, the optimal split of every batch to {:.2f}; what remains are experts that these texts
use and the plan gave no second slot. Online, the same number of slots follow each text: {:.2f}, which
the first two iterations of each text make, those that the balancer cannot know yet.
)",
      rest.contiguous, rest.greedy_even, rest.greedy_optimal, rest.online);
}

void DemoCommand::Run() {
  CheckDevice(engine, /*can_use_gpus=*/true);
  RefuseSeveralProcesses();
  CatchInterrupts();
  if (engine.model.empty()) engine.model = EmbeddedModelFolder();
  std::error_code error;
  std::filesystem::create_directories(output, error);
  if (error) Throw(ErrorKind::kInvalid, "{}: cannot be made: {}", output, error.message());
  engine.statistic_path = output + "/statistics";
  engine.replace_statistics = true;
  const std::string yaml_path = output + "/eplb.yaml";

  std::cout << fmt::format(
      R"({} ranks serve nine kinds of text, one after the other. Every layer of the model has 64 experts
and a router sends each token to 6 of them. The experts are spread over the ranks: this is expert
parallelism. In every layer all ranks wait for the busiest one, so the imbalance, (busiest - mean)
/ mean of tokens per rank, is time lost; 0 is perfect. It is shown for
  (a) contiguous experts: rank 0 has experts 0-7, rank 1 has 8-15, ...
  (b) {} slots: TensorRT-LLM's greedy policy gives the hot experts of the first two domains
      several slots, which share their tokens equally
  (c) the same slots: an optimal split decides for every batch which slot takes a token
  (d) as many slots, contiguous at first: experts move to where the texts of the moment need them

First run, on (a): tokens, imbalance (a) / (b) / (c), the text of one request
)",
      engine.ep, kNumSlots);
  const FirstRun first = RunContiguous();
  statistics::WriteEplbYaml(yaml_path, first.plan);
  const statistics::ExpertStatistics recorded =
      statistics::ReadStatistics(engine.statistic_path, {.sum_ranks = false});
  std::vector<DomainBalance> table = BalanceOfDomains(recorded, first.counts, first.plan);

  std::cout << "\nSecond run, on (c): tokens, measured imbalance, the text of one request\n";
  EngineFlags planned = engine;
  planned.statistic_path.clear();
  planned.placement = yaml_path;
  RunAgain(planned, first, &DomainBalance::measured, table);

  std::cout << "\nThird run, on (d): tokens, measured imbalance, the text of one request\n";
  EngineFlags online = engine;
  online.statistic_path.clear();
  online.num_slots = kNumSlots;
  online.rebalance = "repair";
  online.waits_for_plans = true;
  RunAgain(online, first, &DomainBalance::online, table);
  std::cout << R"(
All runs gave the same text, token by token: where an expert lies never changes what it computes.
So routing is the same, too: (a), (b) and (c) come from the counts of the first run, 'measured' is
what the ranks did in the second, (d) in the third.

)";
  PrintTable(table);
  std::cout << fmt::format(
      "\n  statistics  {0}  (wideload eplb report --expert_statistic_path {0})\n"
      "  placement   {1}  (wideload bench throughput --ep {2} --placement {1} ...)\n",
      engine.statistic_path, yaml_path, engine.ep);
}

}  // namespace

void AddDemo(Command program) {
  const Command command = program.Subcommand(
      "demo", "nine kinds of text on eight ranks: expert parallelism and imbalance on one screen");
  DemoCommand& demo = command.Runs<DemoCommand>(&DemoCommand::Run);
  demo.engine.ep = 8;
  AddOption(command, "--threads", demo.engine);
  AddOption(command, "--device", demo.engine);
  AddOption(command, "--kernels", demo.engine);
  command.Add("--prompts", demo.prompts, "prompts of each domain").Range(1, 48).ShowDefault();
  command.Add("--output", demo.output, "folder for the statistics and the placement file")
      .ShowDefault();
}

}  // namespace wideload::apps
