// What choosing a token from a long vocabulary costs, beside sorting its logits: thread CPU time,
// interleaved. Usage: bench_sampler [VOCABULARY]
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <random>
#include <vector>

#include "bench_timing.h"
#include "runtime/sampler.h"

namespace wideload::bench {
namespace {

constexpr int kRepetitions = 15;
constexpr int64_t kMaxVocabulary = 1 << 24;

struct Setting {
  const char* name;
  runtime::SamplingParams params;
  std::vector<double> seconds{};
};

double SortSeconds(const std::vector<float>& logits, const Clock& clock) {
  std::vector<float> sorted = logits;
  const double begin = clock.Seconds();
  std::sort(sorted.begin(), sorted.end());
  return clock.Seconds() - begin;
}

void Run(int64_t vocabulary) {
  // As peaked as the logits of a trained model: a few hundred tokens hold 95 %.
  std::mt19937 random(1);
  std::normal_distribution<float> logit(0, 6);
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  for (float& value : logits) value = logit(random);

  std::array<Setting, 5> settings = {{{"greedy", {.temperature = 0}},
                                      {"temperature", {.temperature = 1}},
                                      {"top-k 20", {.temperature = 1, .top_k = 20}},
                                      {"top-p 0.95", {.temperature = 1, .top_p = 0.95}},
                                      {"20 logprobs", {.temperature = 0, .num_logprobs = 20}}}};
  runtime::Sampler sampler(vocabulary);
  std::vector<runtime::TokenLogprob> logprobs;
  std::vector<double> sort_seconds;
  const Clock clock{CLOCK_THREAD_CPUTIME_ID};
  for (int i = 0; i < kRepetitions; ++i) {
    sort_seconds.push_back(SortSeconds(logits, clock));
    for (Setting& setting : settings) {
      setting.params.seed = static_cast<uint64_t>(i);
      const double begin = clock.Seconds();
      sampler.Sample({.logits = logits, .tokens = {}}, setting.params, logprobs);
      setting.seconds.push_back(clock.Seconds() - begin);
    }
  }
  const double sort = Median(sort_seconds);
  fmt::print("{} logits, medians of {}: sorting them {:.2f} ms\n", vocabulary, kRepetitions,
             1e3 * sort);
  for (const Setting& setting : settings) {
    const double median = Median(setting.seconds);
    fmt::print("{:<12} {:>8.3f} ms  {:>6.3f} of sorting\n", setting.name, 1e3 * median,
               median / sort);
  }
}

}  // namespace
}  // namespace wideload::bench

int main(int argc, char** argv) {
  const int64_t vocabulary = argc > 1 ? std::atoll(argv[1]) : 151936;
  if (vocabulary < 1 || vocabulary > wideload::bench::kMaxVocabulary) {
    fmt::print(stderr, "bench_sampler: a vocabulary of {}; allowed: 1 to {}\n", vocabulary,
               wideload::bench::kMaxVocabulary);
    return 2;
  }
  wideload::bench::Run(vocabulary);
  return 0;
}
