#include "statistics/html_report.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "statistics/expert_ranking.h"
#include "statistics/html_charts.h"
#include "statistics/html_page.h"

namespace wideload::statistics {
namespace {

int32_t RanksBefore(const ExpertStatistics& statistics, const HtmlReportOptions& options) {
  const bool divides = options.ep_size > 0 && statistics.num_experts % options.ep_size == 0;
  return options.projection == nullptr || divides
             ? (options.ep_size > 0 ? options.ep_size : statistics.ep_size)
             : statistics.ep_size;
}

std::vector<double> RelativeToMean(std::vector<double> loads) {
  const double mean =
      std::accumulate(loads.begin(), loads.end(), 0.0) / static_cast<double>(loads.size());
  for (double& load : loads) load = mean > 0 ? load / mean : 0;
  return loads;
}

std::vector<double> LoadsOf(const ExpertStatistics& statistics, size_t layer) {
  const std::vector<int64_t> counts = LayerLoads(statistics, layer);
  return {counts.begin(), counts.end()};
}

// Loads of ranks over all iterations, under contiguous experts or the projection.
HeatMap MakeHeatMap(const ExpertStatistics& statistics, const ReportOptions& options) {
  HeatMap map{.label = {}, .layers = statistics.layers, .loads = {}};
  const EplbTarget target{.num_experts = statistics.num_experts, .ep_size = options.ep_size};
  for (size_t l = 0; l < statistics.layers.size(); ++l) {
    const eplb::Placement placement =
        options.projection ? LayerPlacement(*options.projection, statistics.layers[l], target,
                                            options.projection_source)
                           : eplb::ContiguousPlacement(statistics.num_experts,
                                                       statistics.num_experts, options.ep_size);
    const std::vector<double> loads = LoadsOf(statistics, l);
    const bool has_load = std::any_of(loads.begin(), loads.end(), [](double x) { return x > 0; });
    map.loads.push_back(has_load ? RelativeToMean(eplb::EvenSplitRankLoads(placement, loads))
                                 : std::vector<double>());
  }
  return map;
}

LoadCurve MakeLoadCurve(const ExpertStatistics& statistics) {
  const auto experts = static_cast<size_t>(statistics.num_experts);
  LoadCurve curve{.label = {},
                  .mean = std::vector<double>(experts, 0),
                  .min = std::vector<double>(experts, 1e300),
                  .max = std::vector<double>(experts, 0)};
  double num_loaded = 0;
  for (size_t l = 0; l < statistics.layers.size(); ++l) {
    std::vector<double> loads = RelativeToMean(LoadsOf(statistics, l));
    std::sort(loads.begin(), loads.end(), std::greater<>());
    if (loads[0] == 0) continue;
    num_loaded += 1;
    for (size_t e = 0; e < experts; ++e) {
      curve.mean[e] += loads[e];
      curve.min[e] = std::min(curve.min[e], loads[e]);
      curve.max[e] = std::max(curve.max[e], loads[e]);
    }
  }
  if (num_loaded == 0) return {.label = "no load", .mean = {}, .min = {}, .max = {}};
  for (double& mean : curve.mean) mean /= num_loaded;
  curve.label = fmt::format(
      "Load curve: the busiest expert of a layer gets {:.2f} times the mean on average over layers "
      "(at most {:.2f}), the idlest {:.2f} times",
      curve.mean.front(), curve.max.front(), curve.mean.back());
  return curve;
}

double BusiestOf(const HeatMap& map) {
  double busiest = 0;
  for (const std::vector<double>& row : map.loads)
    for (const double load : row) busiest = std::max(busiest, load);
  return busiest;
}

// One side of the comparison: figures and picture of ranks.
struct Side {
  std::string heading;
  int32_t ranks = 0;
  LoadReport report;
  HeatMap map;
};

Side MakeSide(const ExpertStatistics& statistics, const ReportOptions& options,
              const std::string& heading) {
  Side side{.heading = heading,
            .ranks = options.ep_size,
            .report = MakeLoadReport(statistics, options),
            .map = MakeHeatMap(statistics, options)};
  side.map.label = fmt::format(
      "{}: heat map of {} layers and {} ranks; the busiest rank of any layer gets "
      "{:.2f} times its mean",
      heading, statistics.layers.size(), options.ep_size, BusiestOf(side.map));
  return side;
}

std::string Tiles(const Side& before, const Side* after) {
  std::string text = "<dl class=\"tiles\">\n";
  const char* ratio = after ? "Imbalance ratio before" : "Imbalance ratio";
  text += HtmlTile(ratio, HtmlFigure(before.report.average.imbalance_ratio));
  if (after)
    text += HtmlTile("Imbalance ratio after", HtmlFigure(after->report.average.imbalance_ratio));
  const Side& shown = after ? *after : before;
  text += HtmlTile(after ? "Balancedness (mean / max) after" : "Balancedness (mean / max)",
                   HtmlFigure(shown.report.average.balancedness));
  if (!shown.report.ratios.empty())
    text += HtmlTile("Imbalance of iterations and layers: median, 99th percentile",
                     fmt::format("{:.3f}, {:.3f}", PercentileOfAll(shown.report.ratios, 0.5),
                                 PercentileOfAll(shown.report.ratios, 0.99)));
  text += HtmlTile(
      after ? "Busiest rank after, over all iterations" : "Busiest rank, over all iterations",
      fmt::format("{:.2f} x mean", BusiestOf(shown.map)));
  // Comparable on as many ranks only.
  if (after && before.ranks == after->ranks) {
    const double speed_up =
        (1 + before.report.average.imbalance_ratio) / (1 + after->report.average.imbalance_ratio);
    text += HtmlTile("Expert work of the busiest rank",
                     std::isfinite(speed_up) ? fmt::format("{:.2f} x less", speed_up) : "no load");
  }
  return text + "</dl>\n";
}

std::string Bars(const Side& before, const Side* after) {
  ImbalanceBars bars{.label = fmt::format("Imbalance ratio of {} layers, {} on average",
                                          before.report.layers.size(),
                                          HtmlFigure(before.report.average.imbalance_ratio)),
                     .layers = before.report.layers,
                     .before = {},
                     .after = {}};
  if (after)
    bars.label +=
        fmt::format(" before and {} after", HtmlFigure(after->report.average.imbalance_ratio));
  for (size_t l = 0; l < before.report.rows.size(); ++l) {
    bars.before.push_back(before.report.rows[l].imbalance_ratio);
    if (after) bars.after.push_back(after->report.rows[l].imbalance_ratio);
  }
  std::string text =
      "<section>\n<h2>Imbalance of each layer</h2>\n<p class=\"soft\">(busiest rank - "
      "mean) / mean, per iteration, averaged over iterations.";
  if (after)
    text +=
        " <span class=\"legend\"><span><svg class=\"key\" viewBox=\"0 0 12 12\" "
        "aria-hidden=\"true\"><rect class=\"before\" width=\"12\" height=\"12\"/></svg> "
        "before</span>"
        "<span><svg class=\"key\" viewBox=\"0 0 12 12\" aria-hidden=\"true\"><rect "
        "class=\"after\" width=\"12\" height=\"12\"/></svg> after</span></span>";
  return text + "</p>\n" + ImbalanceSvg(bars) + "</section>\n";
}

std::string TableRow(const std::string& label, const LoadFigures& before,
                     const LoadFigures* after) {
  std::string row = fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td>",
                                label, HtmlFigure(before.mean, 1), HtmlFigure(before.std, 1),
                                HtmlFigure(before.imbalance_ratio, 4));
  if (after)
    row += fmt::format("<td>{}</td><td>{}</td><td>{}</td>", HtmlFigure(after->mean, 1),
                       HtmlFigure(after->std, 1), HtmlFigure(after->imbalance_ratio, 4));
  return row + "</tr>\n";
}

std::string Table(const Side& before, const Side* after) {
  std::string text =
      "<section>\n<details>\n<summary>All figures as a table</summary>\n<div class=\"scroll\">\n"
      "<table>\n<thead><tr><th scope=\"col\">layer</th>";
  for (const char* when : {"", " after"}) {
    if (!after && *when) break;
    for (const char* what : {"mean", "std", "imbalance ratio"})
      text += fmt::format("<th scope=\"col\">{}{}</th>", what, when);
  }
  text += "</tr></thead>\n<tbody>\n";
  for (size_t l = 0; l < before.report.rows.size(); ++l)
    text += TableRow(fmt::to_string(before.report.layers[l]), before.report.rows[l],
                     after ? &after->report.rows[l] : nullptr);
  text += TableRow("average", before.report.average, after ? &after->report.average : nullptr);
  return text + "</tbody>\n</table>\n</div>\n</details>\n</section>\n";
}

std::string HeatMaps(const Side& before, const Side* after) {
  std::string text = "<section>\n<h2>Load of ranks</h2>\n" +
                     HeatMapLegend(!before.report.layers_without_load.empty());
  for (const Side* side : {&before, after})
    if (side)
      text += fmt::format("<h3>{}</h3>\n{}", EscapeHtml(side->heading), HeatMapSvg(side->map));
  return text + "</section>\n";
}

std::string Curve(const ExpertStatistics& statistics) {
  return "<section>\n<h2>Load of experts</h2>\n<p class=\"soft\">Relative to the layer's mean "
         "(dashed): mean over layers, and the range of all layers.</p>\n" +
         LoadCurveSvg(MakeLoadCurve(statistics)) + "</section>\n";
}

std::string ExpertList(const std::vector<RankedExpert>& experts) {
  std::string text;
  for (const RankedExpert& expert : experts)
    text += fmt::format("{}{} ({:.2f})", text.empty() ? "" : ", ", expert.expert, expert.load);
  return text;
}

std::string HotAndCold(const ExpertStatistics& statistics) {
  constexpr int32_t kShown = 5;
  std::string text =
      "<section>\n<details>\n<summary>Hot and cold experts</summary>\n<p class=\"soft\">Number "
      "and load relative to the layer's mean, over all iterations.</p>\n<div class=\"scroll\">\n"
      "<table>\n<thead><tr><th scope=\"col\">layer</th><th scope=\"col\">hottest</th>"
      "<th scope=\"col\">coldest</th><th scope=\"col\">never chosen</th></tr></thead>\n<tbody>\n";
  for (const LayerRanking& layer : RankExperts(statistics, kShown))
    text +=
        fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                    layer.layer, ExpertList(layer.hot), ExpertList(layer.cold), layer.never_chosen);
  return text + "</tbody>\n</table>\n</div>\n</details>\n</section>\n";
}

std::string Notes(const LoadReport& report, const HtmlReportOptions& options) {
  std::string text;
  const auto add = [&](const std::string& note) {
    text += fmt::format("<p class=\"soft\">{}</p>\n", EscapeHtml(note));
  };
  for (const std::string& note : options.notes) add(note);
  if (!report.layers_without_load.empty())
    add(fmt::format("Layers without any load, left out of the figures: {}",
                    fmt::join(report.layers_without_load, ", ")));
  if (report.empty_iterations > 0)
    add(fmt::format("Iterations without any load, left out: {}", report.empty_iterations));
  return text;
}

std::string Head(const ExpertStatistics& statistics, const HtmlReportOptions& options) {
  const std::string title = "Expert load of " + options.source;
  return HtmlHead(title) + fmt::format(
                               "<p class=\"soft\">Iterations {} to {} &middot; {} layers &middot; "
                               "{} experts, {} per token "
                               "&middot; recorded by {} ranks</p>\n",
                               statistics.iter_start, statistics.iter_stop() - 1,
                               statistics.layers.size(), statistics.num_experts,
                               statistics.experts_per_token, statistics.ep_size);
}

}  // namespace

std::string FormatHtmlReport(const ExpertStatistics& statistics, const HtmlReportOptions& options) {
  const int32_t ranks = options.slots ? statistics.ep_size : RanksBefore(statistics, options);
  const std::string when = options.projection ? "Before" : "Recorded";
  const Side before = options.slots
                          ? MakeSide(*options.slots, {.ep_size = ranks},
                                     fmt::format("{}: the {} slots of the run on {} ranks", when,
                                                 options.slots->num_experts, ranks))
                          : MakeSide(statistics, {.ep_size = ranks},
                                     fmt::format("{}: experts in order on {} ranks", when, ranks));
  std::optional<Side> after;
  if (options.projection) {
    const int32_t ranks_after = options.ep_size > 0 ? options.ep_size : statistics.ep_size;
    after =
        MakeSide(statistics,
                 {.ep_size = ranks_after,
                  .projection = options.projection,
                  .projection_source = options.projection_source},
                 fmt::format("After: {} with {} slots on {} ranks, {}", options.projection_source,
                             options.projection->num_slots, ranks_after, options.split));
  }
  const Side* second = after ? &*after : nullptr;
  return Head(statistics, options) + Notes(before.report, options) + Tiles(before, second) +
         Bars(before, second) + HeatMaps(before, second) + Curve(statistics) +
         HotAndCold(statistics) + Table(before, second) + kHtmlEnd;
}

}  // namespace wideload::statistics
