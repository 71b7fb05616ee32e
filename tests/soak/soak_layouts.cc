// ./dev soak layouts --runs N: random layouts of random requests, each compared bit for bit with
// one rank. --all: every layout of 1, 2, 4 and 8 ranks, as the page docs/layouts.md, which it
// compares or writes.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/error.h"
#include "base/file.h"
#include "support/layout_cases.h"
#include "support/random_layout.h"
#include "support/random_model.h"
#include "support/test_data.h"

namespace wideload {
namespace {

struct Soak {
  int64_t runs = 5000;
  uint64_t seed = 1;
  int64_t done = 0;

  // Tries `batch` layouts of the model. Returns whether all gave the bits of one rank.
  bool Try(const std::string& folder, compute::KernelSet kernels, size_t num_requests,
           int64_t batch);
};

// What is wrong with a layout; "" if nothing is.
std::string Difference(const testing_support::TestModel& model,
                       const testing_support::RandomLayout& layout,
                       const std::vector<runtime::Request>& requests,
                       const std::vector<testing_support::Outcome>& expected) {
  try {
    return CompareLayout(model, layout, requests, expected);
  } catch (const Error& error) {
    return fmt::format("{}: {}", layout.Describe(), error.what());
  }
}

bool Soak::Try(const std::string& folder, compute::KernelSet kernels, size_t num_requests,
               int64_t batch) {
  if (done >= runs) return true;
  const testing_support::TestModel model = testing_support::LoadTestModel(folder, kernels);
  const auto requests =
      testing_support::DrawRequests(model, num_requests, seed + static_cast<uint64_t>(done));
  const auto expected = testing_support::RunRequests(
      *model.model, testing_support::TestOptions(model.config, kernels), requests);
  for (int64_t i = 0; i < batch && done < runs; ++i, ++done) {
    const auto layout = testing_support::DrawLayout(model, kernels, requests.size(),
                                                    seed + static_cast<uint64_t>(done));
    const std::string difference = Difference(model, layout, requests, expected);
    if (difference.empty()) continue;
    std::printf("%s, layout %lld: %s\n", folder.c_str(), static_cast<long long>(done),
                difference.c_str());
    return false;
  }
  std::fprintf(stderr, "%lld of %lld layouts\n", static_cast<long long>(done),
               static_cast<long long>(runs));
  return true;
}

bool Run(Soak& soak) {
  const std::string random_folder = testing_support::TemporaryFolder("soak");
  testing_support::WriteRandomModel(random_folder, 20);
  std::vector<std::string> folders = testing_support::TinyModels();
  folders.push_back(random_folder);
  for (const std::string& folder : testing_support::WriteRandomFamilies(20))
    folders.push_back(folder);
  const std::string trained_folder = testing_support::SourcePath("models/wideload-14m");
  while (soak.done < soak.runs)
    for (const compute::KernelSet kernels : compute::SupportedKernelSets()) {
      for (const std::string& folder : folders)
        if (!soak.Try(folder, kernels, 10, 10)) return false;
      if (!soak.Try(trained_folder, kernels, 5, 3)) return false;  // takes longest
    }
  std::printf("%lld layouts, no bit differs\n", static_cast<long long>(soak.done));
  return true;
}

// Tries every layout and prints the page, row by row. Returns whether no bit differs and, unless it
// is written, the page in docs is this one.
bool RunAll(bool is_written) {
  const std::string file = testing_support::SourcePath("docs/layouts.md");
  bool are_same = true;
  std::string page = testing_support::LayoutPageBegin();
  std::printf("%s", page.c_str());
  const auto add = [&page](const std::string& text) {
    page += text;
    std::printf("%s", text.c_str());
    std::fflush(stdout);
  };
  for (const std::string& folder : testing_support::LayoutModels()) {
    testing_support::LayoutRunner runner(folder);
    for (const testing_support::LayoutCase& layout : testing_support::LayoutCases(folder)) {
      if (!layout.are_processes) add(LayoutRowBegin(folder, layout));
      const std::string difference = runner.Run(layout);
      are_same = are_same && difference == "0";
      add(difference + (layout.are_processes ? " |\n" : " | "));
    }
  }
  if (is_written) {
    WriteFileWhole(file, page);
  } else if (page != ReadFile(file)) {
    std::fprintf(stderr, "%s is another page; --write makes it this one\n", file.c_str());
    return false;
  }
  return are_same;
}

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  wideload::Soak soak;
  CLI::App app("random layouts against one rank, bit for bit");
  app.add_option("--runs", soak.runs, "layouts to try")->capture_default_str();
  app.add_option("--seed", soak.seed, "of the first layout")->capture_default_str();
  bool is_all = false;
  app.add_flag("--all", is_all, "every layout of 1, 2, 4 and 8 ranks of three models, as a table");
  bool is_written = false;
  app.add_flag("--write", is_written, "with --all: writes docs/layouts.md");
  CLI11_PARSE(app, argc, argv);
  return (is_all ? wideload::RunAll(is_written) : wideload::Run(soak)) ? 0 : 1;
}
