// ./dev soak layouts --runs N: random layouts of random requests, each compared bit for bit with
// one rank.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "support/random_layout.h"
#include "support/random_model.h"
#include "support/test_data.h"

int main(int argc, char** argv) {
  using namespace wideload;
  int64_t runs = 5000;
  uint64_t seed = 1;
  CLI::App app("random layouts against one rank, bit for bit");
  app.add_option("--runs", runs, "layouts to try")->capture_default_str();
  app.add_option("--seed", seed, "of the first layout")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const std::string random_folder = testing_support::TemporaryFolder("soak");
  testing_support::WriteRandomModel(random_folder, 20);
  const std::string folders[] = {random_folder,
                                 testing_support::SourcePath("testdata/models/tiny-qwen3-moe"),
                                 testing_support::SourcePath("models/wideload-14m")};
  int64_t done = 0;
  while (done < runs) {
    for (const compute::KernelSet kernels : compute::SupportedKernelSets()) {
      for (size_t f = 0; f < std::size(folders); ++f) {
        const testing_support::TestModel model =
            testing_support::LoadTestModel(folders[f], kernels);
        const auto requests = testing_support::DrawRequests(model, f == 2 ? 5 : 10,
                                                            seed + static_cast<uint64_t>(done));
        const auto expected = testing_support::RunRequests(
            *model.model, testing_support::TestOptions(model.config, kernels), requests);
        const int64_t batch = f == 2 ? 10 : 50;  // the trained model takes longest
        for (int64_t i = 0; i < batch && done < runs; ++i, ++done) {
          const auto layout = testing_support::DrawLayout(model, kernels, requests.size(),
                                                          seed + static_cast<uint64_t>(done));
          const std::string difference =
              testing_support::CompareLayout(model, layout, requests, expected);
          if (!difference.empty()) {
            std::printf("%s, layout %lld: %s\n", folders[f].c_str(), static_cast<long long>(done),
                        difference.c_str());
            return 1;
          }
        }
        std::fprintf(stderr, "%lld of %lld layouts\n", static_cast<long long>(done),
                     static_cast<long long>(runs));
      }
    }
  }
  std::printf("%lld layouts, no bit differs\n", static_cast<long long>(done));
  return 0;
}
