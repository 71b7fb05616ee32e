#include "eplb_crossing.h"

namespace wideload::apps {
namespace {

std::string PairsText(const statistics::CrossingFigures& figures) {
  std::string text;
  for (const statistics::ExpertPair& pair : figures.pairs)
    text += fmt::format(" {}+{} ({:.1f}x)", pair.first, pair.second, pair.lift);
  return text.empty() ? " none" : text;
}

}  // namespace

std::vector<LayerCrossing> CrossingsOf(const LoadFlags& flags, const CrossingOptions& options) {
  constexpr size_t kPairs = 5;
  std::vector<LayerCrossing> crossings;
  if (flags.routing.empty()) return crossings;
  const eplb::RoutingTrace routing = statistics::ReadRouting(flags.routing, flags.num_experts);
  const int32_t ep_size = options.ep_size;
  const statistics::EplbConfig contiguous{.num_slots = (routing.num_experts + ep_size - 1) /
                                                       ep_size * ep_size};
  const statistics::EplbConfig& config = options.projection ? *options.projection : contiguous;
  const statistics::EplbTarget target{.num_experts = routing.num_experts, .ep_size = ep_size};
  for (int32_t layer = 0; layer < routing.num_layers; ++layer)
    crossings.push_back(
        {layer, statistics::CrossingOf(
                    routing, layer,
                    statistics::LayerPlacement(config, layer, target, options.projection_source),
                    options.num_nodes, kPairs)});
  return crossings;
}

std::string CrossingText(const std::vector<LayerCrossing>& crossings, int32_t num_nodes) {
  if (crossings.empty()) return "";
  std::string text = fmt::format(
      "Crossing: ranks that a token's rows go to; copies that leave its rank and its node ({} "
      "nodes);\npairs of its experts on one rank; experts chosen together at least twice as often "
      "as "
      "by chance:\n",
      num_nodes);
  for (const LayerCrossing& row : crossings)
    text += fmt::format(
        "{}  {:.3f} ranks  off rank {:.3f}  off node {:.3f}  pairs {:.3f}  together{}\n", row.layer,
        row.figures.ranks_per_token, row.figures.rows_off_rank, row.figures.rows_off_node,
        row.figures.pairs_on_one_rank, PairsText(row.figures));
  return text;
}

Json CrossingJson(const std::vector<LayerCrossing>& crossings) {
  Json rows = Json::array();
  for (const LayerCrossing& row : crossings) {
    Json pairs = Json::array();
    for (const statistics::ExpertPair& pair : row.figures.pairs)
      pairs.push_back(
          {{"experts", {pair.first, pair.second}}, {"tokens", pair.tokens}, {"lift", pair.lift}});
    rows.push_back({{"layer", row.layer},
                    {"ranks_per_token", row.figures.ranks_per_token},
                    {"rows_off_rank", row.figures.rows_off_rank},
                    {"rows_off_node", row.figures.rows_off_node},
                    {"pairs_on_one_rank", row.figures.pairs_on_one_rank},
                    {"chosen_together", pairs}});
  }
  return rows;
}

}  // namespace wideload::apps
