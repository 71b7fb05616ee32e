// Layouts and request orders drawn from a seed, and the check that none of them changes a bit of
// any request.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "support/test_engine.h"

namespace wideload::testing_support {

// What varies: stages and micro-batches (unless the number of ranks is given), groups of ranks
// (each as many as the model is made for) and how many of these share a context, threads, slots,
// placement, split, chunk of the MoE layer, tokens per iteration, batch size, KV blocks (small
// enough to preempt), order of arrival, MoE mode.
struct RandomLayout {
  runtime::EngineOptions options;
  std::vector<size_t> order;  // in which the requests are submitted
  std::string Describe() const;
};
// num_ranks: 0 for a drawn one.
RandomLayout DrawLayout(const TestModel& model, compute::KernelSet kernels, size_t num_requests,
                        uint64_t seed, int32_t num_ranks = 0);

// Greedy and sampled requests with logits of their prompts, of lengths 1 to about 70, drawn from a
// seed.
std::vector<runtime::Request> DrawRequests(const TestModel& model, size_t count, uint64_t seed);

// Runs the requests on the layout and compares with `expected`, the outcomes of one rank, by bytes.
// Returns what differs, or "".
std::string CompareLayout(const TestModel& model, const RandomLayout& layout,
                          const std::vector<runtime::Request>& requests,
                          const std::vector<Outcome>& expected);

}  // namespace wideload::testing_support
