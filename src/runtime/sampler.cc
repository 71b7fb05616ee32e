#include "runtime/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace wideload::runtime {
namespace {

uint64_t Mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

// The largest logit, ties to the lowest id; -1 if there is a NaN or nothing finite.
int32_t ArgMax(std::span<const float> logits) {
  // Lanes that do not wait for each other: a compiler may not reorder a maximum of floats itself.
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> best;
  best.fill(-std::numeric_limits<float>::infinity());
  std::array<int32_t, kLanes> has_nan{};
  const auto look = [&](size_t i, size_t lane) {
    best[lane] = logits[i] > best[lane] ? logits[i] : best[lane];
    has_nan[lane] |= logits[i] != logits[i] ? 1 : 0;
  };
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) look(i + lane, lane);
  for (; i < logits.size(); ++i) look(i, 0);
  const float largest = *std::max_element(best.begin(), best.end());
  if (!std::isfinite(largest) || std::ranges::count(has_nan, 0) != kLanes) return -1;
  return static_cast<int32_t>(std::ranges::find(logits, largest) - logits.begin());
}

bool HasPenalties(const SamplingParams& params) {
  return params.repetition_penalty != 1 || params.presence_penalty != 0 ||
         params.frequency_penalty != 0;
}

// Whether the sampler leaves all logits as they are.
bool IsAsItIs(const Sampler::Input& input, const SamplingParams& params) {
  return !HasPenalties(params) && input.bias.empty() && input.forbidden.empty() &&
         input.allowed.empty();
}

bool Better(const TokenLogit& a, const TokenLogit& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

}  // namespace

double UniformRandom(uint64_t seed, uint64_t index, uint64_t position) {
  const uint64_t bits = Mix(Mix(Mix(seed) ^ index) ^ position);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

void FillLogprobs(std::span<const float> logits, int32_t token, int32_t count,
                  std::vector<TokenLogit>& scratch, std::vector<TokenLogprob>& logprobs) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) largest = std::max(largest, static_cast<double>(logit));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  const double log_sum = largest + std::log(sum);
  scratch.clear();
  for (size_t i = 0; i < logits.size(); ++i)
    scratch.push_back({logits[i], static_cast<int32_t>(i)});
  const auto end = scratch.begin() + std::min<int64_t>(count, static_cast<int64_t>(scratch.size()));
  std::partial_sort(scratch.begin(), end, scratch.end(), Better);
  logprobs.push_back({token, static_cast<float>(logits[static_cast<size_t>(token)] - log_sum)});
  for (auto it = scratch.begin(); it != end; ++it)
    logprobs.push_back({it->id, static_cast<float>(it->logit - log_sum)});
}

Sampler::Sampler(int64_t vocab_size)
    : logits_(static_cast<size_t>(vocab_size)), counts_(static_cast<size_t>(vocab_size)) {
  candidates_.reserve(static_cast<size_t>(vocab_size));
  weights_.reserve(static_cast<size_t>(vocab_size));
}

int32_t Sampler::Sample(const Input& input, const SamplingParams& params,
                        std::vector<TokenLogprob>& logprobs) {
  WIDELOAD_CHECK(input.logits.size() == logits_.size(), "{} logits for a vocabulary of {}",
                 input.logits.size(), logits_.size());
  logprobs.clear();
  const int32_t largest = ArgMax(input.logits);
  if (largest < 0) return -1;
  if (params.temperature <= 0 && params.num_logprobs < 0 && IsAsItIs(input, params)) return largest;
  std::copy(input.logits.begin(), input.logits.end(), logits_.begin());
  for (const TokenBias& bias : input.bias) logits_[static_cast<size_t>(bias.id)] += bias.bias;
  ApplyPenalties(input, params);
  const auto vocab_size = static_cast<int64_t>(logits_.size());
  for (const int32_t id : input.forbidden)
    if (id >= 0 && id < vocab_size)
      logits_[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
  ApplyAllowed(input.allowed);
  int32_t token = ArgMax(logits_);
  if (token >= 0 && params.temperature > 0)
    token = Draw(params, UniformRandom(params.seed, input.index, input.tokens.size()));
  if (params.num_logprobs >= 0 && token >= 0)
    FillLogprobs(input.logits, token, params.num_logprobs, candidates_, logprobs);
  return token;
}

void Sampler::ApplyAllowed(std::span<const uint64_t> allowed) {
  if (allowed.empty()) return;
  WIDELOAD_CHECK(allowed.size() == (logits_.size() + 63) / 64, "{} words for {} logits",
                 allowed.size(), logits_.size());
  for (size_t word = 0; word < allowed.size(); ++word) {
    const uint64_t bits = allowed[word];
    if (bits == ~uint64_t{0}) continue;
    const size_t first = word * 64;
    const size_t end = std::min(first + 64, logits_.size());
    for (size_t i = first; i < end; ++i)
      if ((bits >> (i - first) & 1) == 0) logits_[i] = -std::numeric_limits<float>::infinity();
  }
}

void Sampler::ApplyPenalties(const Input& input, const SamplingParams& params) {
  if (!HasPenalties(params)) return;
  for (size_t i = 0; i < input.tokens.size(); ++i) {
    auto& [in_prompt, generated] = counts_[static_cast<size_t>(input.tokens[i])];
    ++(static_cast<int64_t>(i) < input.prompt_length ? in_prompt : generated);
  }
  for (const int32_t token : input.tokens) {
    auto& [in_prompt, generated] = counts_[static_cast<size_t>(token)];
    if (in_prompt + generated == 0) continue;  // done at its first occurrence
    float& logit = logits_[static_cast<size_t>(token)];
    double value = logit;
    value = value > 0 ? value / params.repetition_penalty : value * params.repetition_penalty;
    if (generated > 0) value -= params.presence_penalty + params.frequency_penalty * generated;
    // A penalty may be so extreme that no float holds the result.
    constexpr double kLargest = std::numeric_limits<float>::max();
    if (std::isfinite(logit)) value = std::clamp(value, -kLargest, kLargest);
    logit = static_cast<float>(value);
    in_prompt = generated = 0;
  }
}

// Brings the best of candidates_ to the front, best first, until their weights reach `needed` or
// all are there. weights_ becomes theirs, of as many as are needed.
void Sampler::SortHead(double needed) {
  // A vocabulary is long and the head short: it grows until it is enough, and what lies behind it
  // stays as it is.
  constexpr int64_t kFirstHead = 64;
  constexpr int64_t kGrowth = 8;
  weights_.clear();
  const auto size = static_cast<int64_t>(candidates_.size());
  double sum = 0;
  int64_t done = 0;
  for (int64_t head = std::min(kFirstHead, size); done < size;
       head = std::min(head * kGrowth, size)) {
    const auto begin = candidates_.begin() + done;
    const auto end = candidates_.begin() + head;
    if (head < size) std::nth_element(begin, end, candidates_.end(), Better);
    std::sort(begin, end, Better);
    for (; done < head; ++done) {
      if (sum >= needed) return;
      weights_.push_back(std::exp(candidates_[static_cast<size_t>(done)].logit));
      sum += weights_.back();
    }
  }
}

// Without top-p the order does not matter, and candidates stay as they are; with it, the prefix
// sums run from the largest on.
int32_t Sampler::Draw(const SamplingParams& params, double uniform) {
  candidates_.clear();
  float largest = -std::numeric_limits<float>::infinity();
  for (const float logit : logits_) largest = std::max(largest, logit);
  // The largest is subtracted before the division: a small temperature gives 0 and -infinity, never
  // infinity - infinity.
  for (size_t i = 0; i < logits_.size(); ++i)
    candidates_.push_back({(static_cast<double>(logits_[i]) - largest) / params.temperature,
                           static_cast<int32_t>(i)});
  const size_t keep = params.top_k > 0
                          ? std::min<size_t>(static_cast<size_t>(params.top_k), candidates_.size())
                          : candidates_.size();
  if (keep < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<int64_t>(keep),
                     candidates_.end(), Better);
    candidates_.resize(keep);
    std::sort(candidates_.begin(), candidates_.end(), Better);
  }
  weights_.clear();
  double total = 0;
  for (const TokenLogit& c : candidates_) {
    weights_.push_back(std::exp(c.logit));
    total += weights_.back();
  }
  if (params.top_p < 1) SortHead(params.top_p * total);  // the smallest prefix that reaches top_p
  const size_t kept = weights_.size();
  double mass = 0;
  for (size_t i = 0; i < kept; ++i) {
    if (weights_[i] < params.min_p) weights_[i] = 0;  // the largest weight is 1
    mass += weights_[i];
  }
  double left = uniform * mass;
  size_t last = 0;
  for (size_t i = 0; i < kept; ++i) {
    if (weights_[i] <= 0) continue;
    last = i;
    left -= weights_[i];
    if (left < 0) break;
  }
  return candidates_[last].id;
}

}  // namespace wideload::runtime
