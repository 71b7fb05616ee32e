#include "statistics/html_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace wideload::statistics {
namespace {

// A class of the style sheet per band of load relative to the mean, from idle to overloaded.
struct Band {
  double below;  // loads below this
  std::string_view css;
  std::string_view text;
};
constexpr std::array<Band, 9> kBands = {{
    {0.25, "l4", "below 0.25"},
    {0.5, "l3", "0.25 to 0.5"},
    {0.75, "l2", "0.5 to 0.75"},
    {0.95, "l1", "0.75 to 0.95"},
    {1.05, "m", "0.95 to 1.05 (even)"},
    {1.25, "h1", "1.05 to 1.25"},
    {1.5, "h2", "1.25 to 1.5"},
    {2.0, "h3", "1.5 to 2"},
    {1e300, "h4", "2 and more"},
}};

std::string_view BandOf(double load) {
  for (const Band& band : kBands)
    if (load < band.below) return band.css;
  return kBands.back().css;
}

// Labels stand at every n-th row or column, so that at most `room` are drawn.
size_t LabelStep(size_t count, size_t room) {
  return std::max<size_t>(1, (count + room - 1) / room);
}

// A round step of an axis with about four marks up to `top`.
double AxisStep(double top) {
  const double power = std::pow(10.0, std::floor(std::log10(top / 4)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= top / 4) return factor * power;
  return 10 * power;
}

constexpr double kLeft = 56;  // room for labels of the vertical axis
constexpr double kWidth = 720;
constexpr double kTop = 12;
constexpr double kBottom = 40;

// What both diagrams with a vertical axis share: values 0..top on `height` pixels.
struct Plot {
  double height;
  double top;

  double Y(double value) const { return kTop + height * (1 - std::min(value, top) / top); }
  std::string Open(std::string_view label) const {
    std::string svg = fmt::format(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n<title>{}</title>\n",
        kLeft + kWidth + 8, kTop + height + kBottom, EscapeHtml(label), EscapeHtml(label));
    const double step = AxisStep(top);
    for (double value = 0; value <= top * 1.0001; value += step)
      svg += fmt::format(
          "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>"
          "<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{:.4g}</text>\n",
          kLeft, kLeft + kWidth, Y(value), Y(value), kLeft - 8, Y(value) + 4, value);
    return svg;
  }
  std::string AxisTitle(std::string_view text) const {
    return fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                       kLeft + kWidth / 2, kTop + height + kBottom - 6, text);
  }
};

std::string Points(const Plot& plot, const std::vector<double>& values, bool backwards) {
  std::string points;
  for (size_t n = 0; n < values.size(); ++n) {
    const size_t i = backwards ? values.size() - 1 - n : n;
    const double x =
        kLeft + kWidth * (static_cast<double>(i) + 0.5) / static_cast<double>(values.size());
    points += fmt::format("{:.1f},{:.1f} ", x, plot.Y(values[i]));
  }
  return points;
}

double LargestOf(const std::vector<double>& values) {
  double largest = 0;
  for (const double value : values)
    if (std::isfinite(value)) largest = std::max(largest, value);
  return largest;
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string escaped;
  for (const char c : text) switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  return escaped;
}

std::string HeatMapSvg(const HeatMap& map) {
  size_t ranks = 0;
  for (const std::vector<double>& row : map.loads) ranks = std::max(ranks, row.size());
  if (ranks == 0) return "";
  const double cell_width = kWidth / static_cast<double>(ranks);
  const double cell_height = map.loads.size() > 16 ? 12 : 22;
  const double gap = cell_width > 6 ? 1 : 0;
  const double height = cell_height * static_cast<double>(map.loads.size());
  std::string svg = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n<title>{}</title>\n",
      kLeft + kWidth + 8, height + kTop + kBottom, EscapeHtml(map.label), EscapeHtml(map.label));
  for (size_t l = 0; l < map.loads.size(); ++l) {
    const double y = kTop + cell_height * static_cast<double>(l);
    if (l % LabelStep(map.loads.size(), 30) == 0)
      svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", kLeft - 8,
                         y + cell_height / 2 + 4, map.layers[l]);
    if (map.loads[l].empty())
      svg += fmt::format(
          "<rect class=\"none\" x=\"{}\" y=\"{:.1f}\" width=\"{}\" height=\"{:.1f}\">"
          "<title>layer {}: no load</title></rect>\n",
          kLeft, y, kWidth, cell_height - 1, map.layers[l]);
    for (size_t r = 0; r < map.loads[l].size(); ++r)
      svg += fmt::format(
          "<rect class=\"{}\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\">"
          "<title>layer {}, rank {}: {:.2f} x mean</title></rect>\n",
          BandOf(map.loads[l][r]), kLeft + cell_width * static_cast<double>(r), y, cell_width - gap,
          cell_height - 1, map.layers[l], r, map.loads[l][r]);
  }
  for (size_t r = 0; r < ranks; r += LabelStep(ranks, 16))
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                       kLeft + cell_width * (static_cast<double>(r) + 0.5), kTop + height + 14, r);
  svg += fmt::format(
      "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">rank (one row per layer)</text>\n</svg>\n",
      kLeft + kWidth / 2, kTop + height + kBottom - 6);
  return svg;
}

std::string HeatMapLegend(bool has_empty) {
  std::string legend =
      "<p class=\"legend\">Tokens of a rank over all iterations, relative to the layer's mean: ";
  for (const Band& band : kBands)
    legend += fmt::format(
        "<span><svg class=\"key\" viewBox=\"0 0 12 12\" aria-hidden=\"true\"><rect class=\"{}\" "
        "width=\"12\" height=\"12\"/></svg> {}</span> ",
        band.css, band.text);
  if (has_empty)
    legend +=
        "<span><svg class=\"key\" viewBox=\"0 0 12 12\" aria-hidden=\"true\"><rect "
        "class=\"none\" width=\"12\" height=\"12\"/></svg> no load</span> ";
  return legend + "</p>\n";
}

std::string LoadCurveSvg(const LoadCurve& curve) {
  if (curve.mean.empty()) return "";
  const Plot plot{.height = 220, .top = std::max(1.2, 1.05 * LargestOf(curve.max))};
  std::string svg = plot.Open(curve.label);
  svg += fmt::format("<polygon class=\"band\" points=\"{}{}\"/>\n", Points(plot, curve.max, false),
                     Points(plot, curve.min, true));
  svg += fmt::format("<line class=\"even\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>\n",
                     kLeft, kLeft + kWidth, plot.Y(1), plot.Y(1));
  svg +=
      fmt::format("<polyline class=\"curve\" points=\"{}\"/>\n", Points(plot, curve.mean, false));
  const size_t experts = curve.mean.size();
  for (size_t i = 0; i < experts; i += LabelStep(experts, 8))
    svg +=
        fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                    kLeft + kWidth * (static_cast<double>(i) + 0.5) / static_cast<double>(experts),
                    kTop + plot.height + 16, i + 1);
  return svg + plot.AxisTitle("experts, the busiest of each layer first") + "</svg>\n";
}

std::string ImbalanceSvg(const ImbalanceBars& bars) {
  if (bars.layers.empty()) return "";
  const double largest = std::max(LargestOf(bars.before), LargestOf(bars.after));
  const Plot plot{.height = 200, .top = std::max(0.02, 1.05 * largest)};
  const double pitch = kWidth / static_cast<double>(bars.layers.size());
  const bool is_pair = !bars.after.empty();
  const double width = std::min(24.0, pitch * 0.8 / (is_pair ? 2 : 1));
  std::string svg = plot.Open(bars.label);
  const auto bar = [&](const char* css, double x, double value, const std::string& what) {
    if (!std::isfinite(value)) return;
    svg += fmt::format(
        "<rect class=\"{}\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\">"
        "<title>{}: {:.4f}</title></rect>\n",
        css, x, plot.Y(value), width - 0.5, plot.Y(0) - plot.Y(value), what, value);
  };
  for (size_t l = 0; l < bars.layers.size(); ++l) {
    const double middle = kLeft + pitch * (static_cast<double>(l) + 0.5);
    const std::string layer = fmt::format("layer {}", bars.layers[l]);
    bar("before", is_pair ? middle - width : middle - width / 2, bars.before[l],
        is_pair ? layer + " before" : layer);
    if (is_pair) bar("after", middle, bars.after[l], layer + " after");
    if (l % LabelStep(bars.layers.size(), 20) == 0)
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", middle,
                         kTop + plot.height + 16, bars.layers[l]);
  }
  return svg + plot.AxisTitle("layer") + "</svg>\n";
}

std::string SeriesSvg(const Series& series) {
  if (series.values.empty()) return "";
  const double largest = std::max(LargestOf(series.values), LargestOf(series.highest));
  const Plot plot{.height = 180, .top = largest > 0 ? 1.05 * largest : 1};
  const double pitch = kWidth / static_cast<double>(series.values.size());
  std::string svg = plot.Open(series.label);
  if (!series.highest.empty())
    svg += fmt::format("<polygon class=\"band\" points=\"{}{}\"/>\n",
                       Points(plot, series.highest, false), Points(plot, series.values, true));
  if (!series.is_bars)
    svg += fmt::format("<polyline class=\"curve\" points=\"{}\"/>\n",
                       Points(plot, series.values, false));
  for (size_t i = 0; i < series.values.size(); ++i) {
    const double x = kLeft + pitch * static_cast<double>(i);
    const double value = series.values[i];
    if (series.is_bars && value > 0)
      svg += fmt::format(
          "<rect class=\"after\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\"/>", x,
          plot.Y(value), std::max(0.5, pitch * 0.85), plot.Y(0) - plot.Y(value));
    // What the pointer rests on says its value.
    svg += fmt::format(
        "<rect class=\"over\" x=\"{:.2f}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\">"
        "<title>iteration {}: {:.4g}</title></rect>\n",
        x, kTop, pitch, plot.height, series.iterations[i], value);
    if (i % LabelStep(series.values.size(), 10) == 0)
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                         x + pitch / 2, kTop + plot.height + 16, series.iterations[i]);
  }
  return svg + plot.AxisTitle("iteration") + "</svg>\n";
}

}  // namespace wideload::statistics
