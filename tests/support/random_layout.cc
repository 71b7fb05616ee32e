#include "support/random_layout.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "kv/paged_cache.h"

namespace wideload::testing_support {
namespace {

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  int64_t Between(int64_t min, int64_t max) {
    return min + static_cast<int64_t>(random_() % static_cast<uint64_t>(max - min + 1));
  }
  template <class T>
  T OneOf(std::initializer_list<T> choices) {
    return *(choices.begin() + Between(0, static_cast<int64_t>(choices.size()) - 1));
  }
  std::mt19937_64& random() { return random_; }

 private:
  std::mt19937_64 random_;
};

}  // namespace

std::string RandomLayout::Describe() const {
  return fmt::format(
      "kernels {}, {} stages ({}) with {} micro-batches, {} groups of {} x {} ranks x {} threads, "
      "{} slots, split {}, moe_max_num_tokens {}, "
      "max_num_tokens {}, max_batch_size {}, {} KV blocks, {}",
      KernelSetName(options.kernels), options.layout.pp, fmt::join(options.stage_layers, ","),
      options.num_micro_batches, options.layout.dp, options.layout.tp, options.layout.cp,
      options.threads_per_rank, options.num_slots, static_cast<int>(options.split),
      options.moe_max_num_tokens, options.max_num_tokens, options.max_batch_size,
      options.num_kv_blocks, options.moe_mode == moe::MoeMode::kBarrier ? "barrier" : "microbatch");
}

RandomLayout DrawLayout(const TestModel& model, compute::KernelSet kernels, size_t num_requests,
                        uint64_t seed, int32_t num_ranks) {
  Dice dice(seed);
  RandomLayout layout;
  runtime::EngineOptions& o = layout.options;
  o = TestOptions(model.config, kernels);
  const auto experts = static_cast<int32_t>(model.config.num_experts);
  const int32_t tp = model.tensor_ranks;
  int32_t groups = tp == 1 ? dice.OneOf({1, 2, 4, 5, 8, 10, 16}) : dice.OneOf({1, 2, 3});
  int32_t cp = dice.OneOf({1, 1, 2, 4});
  if (num_ranks > 0) cp = std::gcd(cp, num_ranks / tp);
  groups = num_ranks > 0 ? num_ranks / tp / cp : cp == 1 ? groups : std::min(groups, 2);
  const int32_t ranks = tp * cp * groups;
  o.layout = {.tp = tp, .dp = groups, .cp = cp, .moe_ep = ranks};
  o.threads_per_rank = static_cast<int32_t>(dice.Between(1, 2));
  const int32_t least = (experts + ranks - 1) / ranks;
  o.num_slots =
      ranks * static_cast<int32_t>(dice.Between(least, std::max(least, 2 * experts / ranks)));
  if (dice.Between(0, 3) > 0)
    for (int64_t i = 0; i < model.config.NumMoeLayers(); ++i)
      o.placements.push_back(eplb::RandomPlacement(experts, o.num_slots, ranks, dice.random()()));
  o.split = dice.OneOf(
      {eplb::SplitMode::kOptimal, eplb::SplitMode::kRoundRobin, eplb::SplitMode::kFirst});
  o.moe_max_num_tokens = dice.OneOf<int64_t>({0, 0, 1, 2, 7, 16, 33, 100});
  o.max_num_tokens = dice.OneOf<int64_t>({3, 8, 17, 64, 512});
  o.max_batch_size = dice.OneOf<int64_t>({1, 2, 5, 32});
  o.num_kv_blocks = dice.OneOf<int64_t>({4, 5, 8, 64});  // the longest request needs 4
  layout.order.resize(num_requests);
  std::iota(layout.order.begin(), layout.order.end(), size_t{0});
  std::shuffle(layout.order.begin(), layout.order.end(), dice.random());
  // Ranks that share attention have the barrier mode alone.
  if (tp * cp == 1) o.moe_mode = dice.OneOf({moe::MoeMode::kBarrier, moe::MoeMode::kMicrobatch});
  // Stages wait for each other in every step: of many ranks that takes long on few cores.
  const auto stages =
      static_cast<int32_t>(dice.Between(1, std::min<int64_t>(3, model.model->spec().num_layers())));
  if (num_ranks > 0 || stages == 1 || ranks > 2) return layout;
  o.layout.pp = stages;
  o.num_micro_batches = static_cast<int32_t>(dice.Between(1, stages));
  if (dice.Between(0, 1) == 1) {
    o.stage_layers.assign(static_cast<size_t>(stages), 1);
    o.stage_layers[static_cast<size_t>(dice.Between(0, stages - 1))] +=
        static_cast<int32_t>(model.model->spec().num_layers()) - stages;
  }
  return layout;
}

std::vector<runtime::Request> DrawRequests(const TestModel& model, size_t count, uint64_t seed) {
  Dice dice(seed);
  std::vector<runtime::Request> requests(count);
  for (size_t i = 0; i < count; ++i) {
    runtime::Request& request = requests[i];
    request.prompt.resize(static_cast<size_t>(dice.OneOf<int64_t>({1, 2, 9, 31, 32, 33, 64, 70})));
    for (int32_t& id : request.prompt)
      id = static_cast<int32_t>(dice.Between(0, model.config.vocab_size - 1));
    request.max_tokens = dice.Between(0, 24);
    request.index = i;
    request.prompt_logits = dice.Between(0, 1) == 1;
    if (dice.Between(0, 1) == 1)
      request.sampling = {
          .temperature = 0.8, .top_k = 40, .top_p = 0.9, .repetition_penalty = 1.1, .seed = 11};
  }
  return requests;
}

std::string CompareLayout(const TestModel& model, const RandomLayout& layout,
                          const std::vector<runtime::Request>& requests,
                          const std::vector<Outcome>& expected) {
  std::vector<runtime::Request> ordered;
  for (const size_t i : layout.order) ordered.push_back(requests[i]);
  const std::vector<Outcome> outcomes = RunRequests(*model.model, layout.options, ordered);
  for (size_t at = 0; at < ordered.size(); ++at) {
    const Outcome& got = outcomes[at];
    const Outcome& want = expected[layout.order[at]];
    const bool same_logits =
        got.logits.size() == want.logits.size() &&
        (want.logits.empty() || std::memcmp(got.logits.data(), want.logits.data(),
                                            want.logits.size() * sizeof(float)) == 0);
    if (got.tokens != want.tokens || !same_logits || got.finish != want.finish)
      return fmt::format("request {} differs in {} on: {}", layout.order[at],
                         got.tokens != want.tokens ? "tokens" : (same_logits ? "finish" : "logits"),
                         layout.Describe());
  }
  return "";
}

}  // namespace wideload::testing_support
