#include "checkpoint/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace wideload::checkpoint {
namespace {

constexpr int64_t kBlockPositions = 256;

int64_t NumBlocks(int64_t max_positions) {
  return (max_positions + kBlockPositions - 1) / kBlockPositions;
}

// The dimension that turns `rotations` times within the original context.
double CorrectionDim(const RopeConfig& config, int64_t head_dim, double rotations) {
  const auto length = static_cast<double>(config.original_max_positions);
  return static_cast<double>(head_dim) * std::log(length / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(config.theta));
}

// 0 below the first dimension that is stretched, 1 from the last one on, linear between them.
struct Ramp {
  double low;
  double high;
  double operator()(int64_t i) const {
    return std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
  }
};

Ramp YarnRamp(const RopeConfig& config, int64_t head_dim) {
  double low = CorrectionDim(config, head_dim, config.beta_fast);
  double high = CorrectionDim(config, head_dim, config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_dim - 1));
  if (low == high) high += 0.001;  // keeps the ramp finite
  return {low, high};
}

// Long wavelengths are stretched, short ones kept, those between interpolated.
double Llama3Frequency(const RopeConfig& config, double frequency) {
  const auto length = static_cast<double>(config.original_max_positions);
  const double turns = length * frequency / (2.0 * std::numbers::pi);  // within that context
  if (turns > config.high_freq_factor) return frequency;
  if (turns < config.low_freq_factor || config.high_freq_factor == config.low_freq_factor)
    return frequency / config.factor;
  const double kept =
      (turns - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor);
  return kept * frequency + (1.0 - kept) * frequency / config.factor;
}

double Mscale(double factor, double weight) {
  return factor <= 1.0 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0;
}

}  // namespace

std::vector<float> RopeFrequencies(const RopeConfig& config, int64_t head_dim) {
  WIDELOAD_CHECK(head_dim > 0 && head_dim % 2 == 0, "head_dim is {}", head_dim);
  std::vector<float> frequencies;
  const Ramp ramp = config.type == RopeType::kYarn ? YarnRamp(config, head_dim) : Ramp{0.0, 1.0};
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double exponent = static_cast<double>(2 * i) / static_cast<double>(head_dim);
    double frequency = std::pow(config.theta, -exponent);
    if (config.type == RopeType::kLinear) frequency /= config.factor;
    if (config.type == RopeType::kLlama3) frequency = Llama3Frequency(config, frequency);
    if (config.type == RopeType::kYarn)
      frequency = (1.0 - ramp(i)) * frequency + ramp(i) * frequency / config.factor;
    frequencies.push_back(static_cast<float>(frequency));
  }
  return frequencies;
}

float YarnScoreFactor(const RopeConfig& config) {
  if (config.type != RopeType::kYarn || config.mscale_all_dim.value_or(0.0) == 0.0) return 1.0F;
  const double mscale = Mscale(config.factor, *config.mscale_all_dim);
  return static_cast<float>(mscale * mscale);
}

float RopeAttentionFactor(const RopeConfig& config) {
  if (config.type != RopeType::kYarn) return 1.0F;
  if (config.attention_factor) return static_cast<float>(*config.attention_factor);
  const double mscale = config.mscale.value_or(0.0);
  const double mscale_all_dim = config.mscale_all_dim.value_or(0.0);
  if (mscale != 0.0 && mscale_all_dim != 0.0)
    return static_cast<float>(Mscale(config.factor, mscale) /
                              Mscale(config.factor, mscale_all_dim));
  return static_cast<float>(Mscale(config.factor, 1.0));
}

RopeTable::RopeTable(const RopeConfig& config, int64_t rotary_dim, int64_t max_positions)
    : frequencies_(RopeFrequencies(config, rotary_dim)),
      attention_factor_(RopeAttentionFactor(config)),
      max_positions_(max_positions),
      blocks_(std::make_unique<std::atomic<const float*>[]>(
          static_cast<size_t>(NumBlocks(max_positions)))) {}

RopeTable::~RopeTable() {
  for (int64_t i = 0; i < NumBlocks(max_positions_); ++i)
    delete[] blocks_[static_cast<size_t>(i)].load(std::memory_order_relaxed);
}

const float* RopeTable::MakeBlock(int64_t index) const {
  auto values = std::make_unique<float[]>(2 * frequencies_.size() * kBlockPositions);
  float* cos = values.get();
  for (int64_t i = 0; i < kBlockPositions; ++i) {
    float* sin = cos + frequencies_.size();
    for (size_t pair = 0; pair < frequencies_.size(); ++pair) {
      const float angle = static_cast<float>(index * kBlockPositions + i) * frequencies_[pair];
      // In double and rounded once, so that it does not depend on the C library's float functions.
      cos[pair] = static_cast<float>(std::cos(static_cast<double>(angle))) * attention_factor_;
      sin[pair] = static_cast<float>(std::sin(static_cast<double>(angle))) * attention_factor_;
    }
    cos = sin + frequencies_.size();
  }
  return values.release();
}

const float* RopeTable::Block(int64_t index) const {
  std::atomic<const float*>& place = blocks_[static_cast<size_t>(index)];
  const float* block = place.load(std::memory_order_acquire);
  if (block != nullptr) return block;
  const float* made = MakeBlock(index);
  // Whoever comes second takes the block of the first: the values are the same.
  if (place.compare_exchange_strong(block, made, std::memory_order_acq_rel)) return made;
  delete[] made;
  return block;
}

void RopeTable::CopyRow(int64_t position, float* cos, float* sin) const {
  WIDELOAD_CHECK(position >= 0 && position < max_positions_, "position {} of a context of {}",
                 position, max_positions_);
  const float* row =
      Block(position / kBlockPositions) + position % kBlockPositions * 2 * num_pairs();
  std::copy_n(row, num_pairs(), cos);
  std::copy_n(row + num_pairs(), num_pairs(), sin);
}

}  // namespace wideload::checkpoint
