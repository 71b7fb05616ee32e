// The implementations that the conformance suite of Fabric runs over.
#pragma once

#include <climits>
#include <functional>
#include <string>
#include <vector>

#include "exchange/fabric.h"

namespace wideload::exchange {

struct FabricMedium {
  std::string name;
  // Runs body on every rank, each with its fabric over fresh zero-filled segments.
  std::function<void(int num_ranks, int64_t segment_bytes, std::function<void(Fabric&)>)> run;
  int max_ranks = INT_MAX;
};

// The same at every call.
const std::vector<FabricMedium>& FabricMedia();

}  // namespace wideload::exchange
