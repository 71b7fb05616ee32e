// What leaves ranks and nodes under a placement, and which experts are chosen together, of
// token-level routing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "eplb_commands.h"
#include "statistics/eplb_yaml.h"
#include "statistics/routing_figures.h"

namespace wideload::apps {

struct LayerCrossing {
  int32_t layer = 0;
  statistics::CrossingFigures figures;
};

struct CrossingOptions {
  int32_t ep_size = 1;
  int32_t num_nodes = 1;                               // divides ep_size
  const statistics::EplbConfig* projection = nullptr;  // null: experts in order
  std::string projection_source = {};
};

// Of every layer of --routing; empty for other sources. Errors: as ReadRouting and LayerPlacement.
std::vector<LayerCrossing> CrossingsOf(const LoadFlags& flags, const CrossingOptions& options);

std::string CrossingText(const std::vector<LayerCrossing>& crossings, int32_t num_nodes);
Json CrossingJson(const std::vector<LayerCrossing>& crossings);

}  // namespace wideload::apps
