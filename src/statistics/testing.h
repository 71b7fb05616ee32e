// Random tables of loads and placements, for tests that write them and read them back.
#pragma once

#include <cstdint>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "statistics/eplb_yaml.h"
#include "statistics/load_files.h"

namespace wideload::statistics {

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  int32_t Between(int32_t min, int32_t max) {
    return min + static_cast<int32_t>(random_() % static_cast<uint64_t>(max - min + 1));
  }
  // A load: small and large integers, fractions, 0.
  double Load() {
    switch (Between(0, 5)) {
      case 0:
        return 0;
      case 1:
        return Between(0, 9);
      case 2:
        return static_cast<double>(random_() >> 12);
      case 3:
        return static_cast<double>(random_()) * 0x1p-64;
      case 4:
        return static_cast<double>(random_()) * 1e10;  // no integer type of 64 bits holds it
      default:
        return static_cast<double>(random_()) * 1e-300;
    }
  }
  // Ascending, each below `limit`.
  std::vector<int32_t> Layers(int32_t count, int32_t limit) {
    std::set<int32_t> layers;
    while (std::ssize(layers) < count) layers.insert(Between(0, limit - 1));
    return {layers.begin(), layers.end()};
  }

 private:
  std::mt19937_64 random_;
};

inline LoadTable RandomLoads(Dice& dice, int32_t num_layers, int32_t num_experts,
                             int32_t layer_limit) {
  LoadTable table{.num_experts = num_experts};
  for (const int32_t layer : dice.Layers(num_layers, layer_limit))
    for (int32_t e = 0; e < num_experts; ++e) table.layers[layer].push_back(dice.Load());
  return table;
}

inline EplbConfig RandomPlan(Dice& dice, int32_t num_layers, int32_t num_experts, int32_t num_slots,
                             int32_t layer_limit) {
  EplbConfig config{.num_slots = num_slots};
  for (const int32_t layer : dice.Layers(num_layers, layer_limit)) {
    std::vector<int32_t>& slots = config.layers[layer];
    for (int32_t s = 0; s < num_slots; ++s)
      slots.push_back(s < num_experts ? s : dice.Between(0, num_experts - 1));
    for (size_t s = slots.size(); s > 1; --s)
      std::swap(slots[s - 1],
                slots[static_cast<size_t>(dice.Between(0, static_cast<int32_t>(s) - 1))]);
  }
  return config;
}

}  // namespace wideload::statistics
