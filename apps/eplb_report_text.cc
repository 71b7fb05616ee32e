#include "eplb_report_text.h"

#include <fmt/format.h>

#include "statistics/expert_ranking.h"

namespace wideload::apps {
namespace {

Json FiguresJson(const statistics::LoadFigures& figures) {
  return {{"mean", figures.mean},
          {"std", figures.std},
          {"imbalance_ratio", figures.imbalance_ratio},
          {"balancedness", figures.balancedness}};
}

Json PercentilesJson(const std::vector<double>& values) {
  if (values.empty()) return nullptr;
  return {{"p50", statistics::Percentile(values, 0.5)},
          {"p90", statistics::Percentile(values, 0.9)},
          {"p99", statistics::Percentile(values, 0.99)},
          {"max", statistics::Percentile(values, 1)}};
}

Json ExpertsJson(const std::vector<statistics::RankedExpert>& experts) {
  Json list = Json::array();
  for (const statistics::RankedExpert& expert : experts)
    list.push_back({{"expert", expert.expert}, {"load", expert.load}});
  return list;
}

std::vector<double> AllRatios(const statistics::LoadReport& report) {
  std::vector<double> all;
  for (const std::vector<double>& row : report.ratios)
    all.insert(all.end(), row.begin(), row.end());
  return all;
}

std::vector<double> LayerRatios(const statistics::LoadReport& report) {
  std::vector<double> all;
  for (const statistics::LoadFigures& row : report.rows) all.push_back(row.imbalance_ratio);
  return all;
}

std::string ExpertsText(const std::vector<statistics::RankedExpert>& experts) {
  std::string text;
  for (const statistics::RankedExpert& expert : experts)
    text += fmt::format(" {}:{:.2f}", expert.expert, expert.load);
  return text;
}

}  // namespace

Json ReportJson(const statistics::LoadReport& report, const statistics::ExpertStatistics& experts,
                const ReportContext& context, int32_t hot) {
  Json layers = Json::array();
  for (size_t l = 0; l < report.layers.size(); ++l) {
    Json row = FiguresJson(report.rows[l]);
    row["layer"] = report.layers[l];
    row["percentiles"] = PercentilesJson(report.ratios[l]);
    layers.push_back(std::move(row));
  }
  Json document{{"iter_start", experts.iter_start},
                {"iter_stop", experts.iter_stop()},
                {"ep_size", context.ranks.ep_size},
                {"ep_size_from", context.ranks.from},
                {"engine", context.engine.traits ? std::string(context.engine.traits->name) : ""},
                {"split", formats::SplitName(context.engine.split)},
                {"layout", context.layout},
                {"layers", layers},
                {"average", FiguresJson(report.average)},
                {"percentiles", PercentilesJson(AllRatios(report))},
                {"percentiles_over_layers", PercentilesJson(LayerRatios(report))},
                {"layers_without_load", report.layers_without_load},
                {"empty_iterations", report.empty_iterations},
                {"iterations_with_empty_layers", report.partly_empty}};
  if (hot == 0) return document;
  document["experts"] = Json::array();
  for (const statistics::LayerRanking& layer : statistics::RankExperts(experts, hot))
    document["experts"].push_back({{"layer", layer.layer},
                                   {"hot", ExpertsJson(layer.hot)},
                                   {"cold", ExpertsJson(layer.cold)},
                                   {"hot_share", layer.top_share},
                                   {"never_chosen", layer.never_chosen}});
  return document;
}

std::string HotText(const statistics::ExpertStatistics& experts, int32_t hot) {
  if (hot == 0) return "";
  std::string text = "Hot and cold experts (expert:load relative to the layer's mean):\n";
  for (const statistics::LayerRanking& layer : statistics::RankExperts(experts, hot))
    text += fmt::format("{}  hot{} ({:.1f} % of tokens)  cold{}  never chosen {}\n", layer.layer,
                        ExpertsText(layer.hot), 100 * layer.top_share, ExpertsText(layer.cold),
                        layer.never_chosen);
  return text;
}

std::vector<std::string> Notes(const statistics::LoadReport& report, const ReportContext& context) {
  std::vector<std::string> notes = {
      fmt::format("{}; {} ranks: {}", context.layout, context.ranks.ep_size, context.ranks.from),
      context.engine.Sentence()};
  if (report.rows.empty()) return notes;
  const std::vector<double> all = AllRatios(report);
  const std::vector<double> layers = LayerRatios(report);
  notes.push_back(fmt::format(
      "balancedness (mean / max) {:.3f}; imbalance ratio over iterations and layers: median "
      "{:.3f}, "
      "90th percentile {:.3f}, 99th {:.3f}, max {:.3f}; over layers: median {:.3f}, max {:.3f}",
      report.average.balancedness, statistics::Percentile(all, 0.5),
      statistics::Percentile(all, 0.9), statistics::Percentile(all, 0.99),
      statistics::Percentile(all, 1), statistics::Percentile(layers, 0.5),
      statistics::Percentile(layers, 1)));
  return notes;
}

std::vector<std::string> EmptyNotes(const statistics::LoadReport& report) {
  std::vector<std::string> notes;
  if (!report.layers_without_load.empty())
    notes.push_back(fmt::format("layers without any load are left out: {}",
                                fmt::join(report.layers_without_load, ", ")));
  if (report.empty_iterations > 0)
    notes.push_back(
        fmt::format("iterations without any load, left out: {}", report.empty_iterations));
  if (report.partly_empty > 0)
    notes.push_back(fmt::format(
        "iterations in which some layers have no load, and which count for the others only: {}",
        report.partly_empty));
  return notes;
}

}  // namespace wideload::apps
