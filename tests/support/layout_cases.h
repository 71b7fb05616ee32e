// Every layout of 1, 2, 4 and 8 ranks that a model allows, as threads and as processes, with and
// without replicas, chunks and experts that move: what the table in docs/layouts.md lists.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/mapping.h"
#include "support/test_engine.h"

namespace wideload::testing_support {

// Folders of the models of the table: one of 8 heads, 2 KV heads, 8 layers and 16 experts, made
// from a seed, tiny-deepseek-v3 and tiny-gpt-oss.
std::vector<std::string> LayoutModels();

struct LayoutCase {
  parallel::Layout layout;
  // Spare slots, chunks of the MoE layer, and placements drawn anew while requests run.
  bool are_experts_moving = false;
  bool are_processes = false;

  std::string Describe()
      const;  // "1 stages, 2 groups of 4 x 1, experts in 2 parts, in place, threads"
};
std::vector<LayoutCase> LayoutCases(const std::string& folder);

// docs/layouts.md up to the rows of its table.
std::string LayoutPageBegin();
// The beginning of the row of a layout there, alike for threads and processes; the differences of
// both follow, "0 | 0 |".
std::string LayoutRowBegin(const std::string& folder, const LayoutCase& layout);

// DrawRequests with at most 6 tokens to generate.
std::vector<runtime::Request> ShortRequests(const TestModel& model, size_t count, uint64_t seed);

// How outcomes differ: "0" when they are the same bytes, else the largest difference of a logit, or
// what else is different.
std::string Difference(const std::vector<Outcome>& got, const std::vector<Outcome>& expected);

class LayoutRunner {
 public:
  explicit LayoutRunner(const std::string& folder,
                        compute::KernelSet kernels = compute::AutoKernelSet());

  int64_t num_layers() const { return model_.model->spec().num_layers(); }
  // Difference from one rank.
  std::string Run(const LayoutCase& layout);

 private:
  runtime::EngineOptions Options(const LayoutCase& layout) const;

  std::string folder_;
  compute::KernelSet kernels_;
  TestModel model_;  // for the last layout
  std::vector<runtime::Request> requests_;
  std::vector<Outcome> expected_;
};

}  // namespace wideload::testing_support
