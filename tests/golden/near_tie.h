// How near a router was to another choice: what proves that a run in another precision, which chose
// otherwise, was wrong by little.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace wideload::testing_support {

// A choice of experts by the router of `layer` (counted among all layers) at a position of a
// prompt.
struct RouterChoice {
  int64_t layer = 0;
  int64_t position = 0;
  std::vector<int32_t> experts;
};

// The least distance d for which the router chooses `choice.experts` when it sees their logits
// larger by d and those of all others smaller by d than the reference kernels compute them in fp32;
// 1 when that is not enough. `folder`: a checkpoint of any family.
float DistanceTo(const RouterChoice& choice, const std::string& folder,
                 const std::vector<int32_t>& prompt);

}  // namespace wideload::testing_support
