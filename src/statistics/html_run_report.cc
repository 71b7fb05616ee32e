#include "statistics/html_run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "statistics/html_charts.h"
#include "statistics/html_page.h"

namespace wideload::statistics {
namespace {

std::vector<int64_t> FirstIterations(const RunSeries& series) {
  std::vector<int64_t> iterations;
  for (const Stretch& stretch : series.stretches()) iterations.push_back(stretch.first_iteration);
  return iterations;
}

template <class Value>
std::vector<double> ValuesOf(const RunSeries& series, Value value) {
  std::vector<double> values;
  for (const Stretch& stretch : series.stretches())
    values.push_back(static_cast<double>(value(stretch)));
  return values;
}

std::string Section(const std::string& heading, const std::string& text, const std::string& body) {
  return fmt::format("<section>\n<h2>{}</h2>\n<p class=\"soft\">{}</p>\n{}</section>\n", heading,
                     text, body);
}

std::string Tiles(const RunSeries& series) {
  const Stretch total = series.Total();
  std::string text = "<dl class=\"tiles\">\n";
  text += HtmlTile("Iterations", fmt::format("{}", total.num_iterations));
  text += HtmlTile("Tokens of prompts, generated",
                   fmt::format("{}, {}", total.prompt_tokens, total.generated_tokens));
  const int64_t tokens = total.prompt_tokens + total.generated_tokens;
  text += HtmlTile("Tokens per second",
                   total.seconds > 0
                       ? fmt::format("{:.1f}", static_cast<double>(tokens) / total.seconds)
                       : "none");
  if (series.num_layers() > 0) {
    text += HtmlTile("Imbalance, mean of iterations and layers", HtmlFigure(total.MeanImbalance()));
    text += HtmlTile("Balancedness (mean / busiest)", HtmlFigure(total.MeanBalancedness()));
    text += HtmlTile("Slots fetched", fmt::format("{}", total.fetched_slots));
  }
  return text + "</dl>\n";
}

std::string ImbalanceSection(const RunSeries& series) {
  const Stretch total = series.Total();
  Series chart{
      .label = fmt::format("Imbalance over {} iterations: {:.3f} on average, {:.3f} in the "
                           "worst iteration",
                           total.num_iterations, total.MeanImbalance(), total.highest_imbalance),
      .iterations = FirstIterations(series),
      .values = ValuesOf(series, [](const Stretch& s) { return s.MeanImbalance(); }),
      .highest = {}};
  const bool is_merged = std::ranges::any_of(
      series.stretches(), [](const Stretch& stretch) { return stretch.num_iterations > 1; });
  if (is_merged)
    chart.highest = ValuesOf(series, [](const Stretch& s) { return s.highest_imbalance; });
  return Section(
      "Imbalance over time",
      std::string("(busiest rank - mean) / mean of the rows that ranks computed, mean over "
                  "layers.") +
          (is_merged ? " The band reaches to the worst iteration of a stretch." : ""),
      SeriesSvg(chart));
}

HeatMap MakeHeatMap(const RunSeries& series, const std::vector<int32_t>& layers) {
  HeatMap map{.label = {}, .layers = layers, .loads = {}};
  const auto ranks = static_cast<size_t>(series.num_ranks());
  double busiest = 0;
  for (size_t l = 0; l < layers.size(); ++l) {
    const std::span<const int64_t> rows = series.computed_rows().subspan(l * ranks, ranks);
    const auto sum = static_cast<double>(std::accumulate(rows.begin(), rows.end(), int64_t{0}));
    std::vector<double>& loads = map.loads.emplace_back();
    if (sum == 0) continue;
    for (const int64_t row : rows) {
      loads.push_back(static_cast<double>(row) * static_cast<double>(ranks) / sum);
      busiest = std::max(busiest, loads.back());
    }
  }
  map.label = fmt::format(
      "Heat map of {} layers and {} ranks; the busiest rank of any layer computed {:.2f} times its "
      "mean",
      layers.size(), ranks, busiest);
  return map;
}

std::string HeatMapTable(const HeatMap& map) {
  std::string text =
      "<details>\n<summary>As a table</summary>\n<div class=\"scroll\">\n<table>\n<thead><tr>"
      "<th scope=\"col\">layer</th>";
  size_t ranks = 0;
  for (const std::vector<double>& loads : map.loads) ranks = std::max(ranks, loads.size());
  for (size_t r = 0; r < ranks; ++r) text += fmt::format("<th scope=\"col\">rank {}</th>", r);
  text += "</tr></thead>\n<tbody>\n";
  for (size_t l = 0; l < map.loads.size(); ++l) {
    text += fmt::format("<tr><th scope=\"row\">{}</th>", map.layers[l]);
    for (const double load : map.loads[l]) text += fmt::format("<td>{:.3f}</td>", load);
    text += "</tr>\n";
  }
  return text + "</tbody>\n</table>\n</div>\n</details>\n";
}

std::string RanksSection(const RunSeries& series, const std::vector<int32_t>& layers) {
  const HeatMap map = MakeHeatMap(series, layers);
  const bool has_empty = std::ranges::any_of(
      map.loads, [](const std::vector<double>& loads) { return loads.empty(); });
  return Section("Load of ranks", "Rows that each rank computed in the whole run.",
                 HeatMapLegend(has_empty) + HeatMapSvg(map) + HeatMapTable(map));
}

std::string FetchedSection(const RunSeries& series) {
  const Series chart{
      .label = fmt::format("Slots fetched by iteration, {} in all", series.Total().fetched_slots),
      .iterations = FirstIterations(series),
      .values = ValuesOf(series, [](const Stretch& s) { return s.fetched_slots; }),
      .highest = {},
      .is_bars = true};
  return Section(
      "Migrations",
      "Slots, over all layers, that got an expert which their rank did not hold before, by the "
      "iteration that began with it.",
      SeriesSvg(chart));
}

std::string TokensSection(const RunSeries& series) {
  const auto chart = [&](const char* what, auto value) {
    return fmt::format("<h3>{}</h3>\n{}", what,
                       SeriesSvg({.label = fmt::format("{} by iteration", what),
                                  .iterations = FirstIterations(series),
                                  .values = ValuesOf(series, value),
                                  .highest = {},
                                  .is_bars = true}));
  };
  return Section(
      "Tokens", "In each iteration or stretch of iterations, all together.",
      chart("Tokens of prompts", [](const Stretch& s) { return s.prompt_tokens; }) +
          chart("Generated tokens", [](const Stretch& s) { return s.generated_tokens; }));
}

std::string Table(const RunSeries& series) {
  const bool has_experts = series.num_layers() > 0;
  std::string text =
      "<section>\n<details>\n<summary>All figures as a table</summary>\n<div class=\"scroll\">\n"
      "<table>\n<thead><tr><th scope=\"col\">iterations</th><th scope=\"col\">seconds</th>"
      "<th scope=\"col\">prompt tokens</th><th scope=\"col\">generated tokens</th>";
  if (has_experts)
    text +=
        "<th scope=\"col\">imbalance</th><th scope=\"col\">worst iteration</th>"
        "<th scope=\"col\">balancedness</th><th scope=\"col\">fetched slots</th>";
  text += "</tr></thead>\n<tbody>\n";
  for (const Stretch& s : series.stretches()) {
    const int64_t last = s.first_iteration + s.num_iterations - 1;
    text += fmt::format("<tr><th scope=\"row\">{}</th><td>{:.4f}</td><td>{}</td><td>{}</td>",
                        last > s.first_iteration ? fmt::format("{} to {}", s.first_iteration, last)
                                                 : fmt::format("{}", last),
                        s.seconds, s.prompt_tokens, s.generated_tokens);
    if (has_experts)
      text +=
          fmt::format("<td>{:.4f}</td><td>{:.4f}</td><td>{:.4f}</td><td>{}</td>", s.MeanImbalance(),
                      s.highest_imbalance, s.MeanBalancedness(), s.fetched_slots);
    text += "</tr>\n";
  }
  return text + "</tbody>\n</table>\n</div>\n</details>\n</section>\n";
}

}  // namespace

std::string FormatHtmlRunReport(const RunSeries& series, const HtmlRunReportOptions& options) {
  std::string page = HtmlHead(options.title);
  for (const std::string& note : options.notes)
    page += fmt::format("<p class=\"soft\">{}</p>\n", EscapeHtml(note));
  page += Tiles(series);
  if (!options.layers.empty())
    page +=
        ImbalanceSection(series) + RanksSection(series, options.layers) + FetchedSection(series);
  page += TokensSection(series) + Table(series);
  return page.append(kHtmlEnd);
}

}  // namespace wideload::statistics
