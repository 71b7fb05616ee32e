// Random numbers that are the same on every platform for a seed. Plain value.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace wideload::eplb {

// SplitMix64 (Steele, Lea, Flood 2014).
class Random {
 public:
  // The same sequence for the same seed.
  explicit Random(uint64_t seed) : state_(seed) {}

  // 64 random bits.
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }
  // In [0, 1).
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // In [0, bound); bound >= 1.
  int32_t Below(int32_t bound) {
    return static_cast<int32_t>(((Next() >> 32) * static_cast<uint64_t>(bound)) >> 32);
  }
  // Standard normal (Box and Muller; one of the pair).
  double Normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - Uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * Uniform());
  }

 private:
  uint64_t state_;
};

}  // namespace wideload::eplb
