// The charts of the HTML report as inline SVG. Colours are CSS classes, so that one drawing serves
// light and dark pages. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wideload::statistics {

// `text` with the characters that mean something in HTML replaced, for elements and attributes.
std::string EscapeHtml(std::string_view text);

// A grid of layers x ranks. loads [layers][ranks] relative to the mean of the layer; the colour
// tells how far a rank is above or below it. A row without loads is a layer without load.
struct HeatMap {
  std::string label;            // read out instead of the picture
  std::vector<int32_t> layers;  // layer index of each row
  std::vector<std::vector<double>> loads;
};
// One picture; "" without layers.
std::string HeatMapSvg(const HeatMap& map);
// The colours of the heat map and what they stand for; `has_empty` adds that of layers without
// load.
std::string HeatMapLegend(bool has_empty);

// Loads of experts from the busiest down, relative to their mean: [position] over layers.
struct LoadCurve {
  std::string label;
  std::vector<double> mean;
  std::vector<double> min;
  std::vector<double> max;
};
// The mean as a line, the range as an area around it.
std::string LoadCurveSvg(const LoadCurve& curve);

// Imbalance ratio of each layer, before and (when not empty) after.
struct ImbalanceBars {
  std::string label;
  std::vector<int32_t> layers;
  std::vector<double> before;
  std::vector<double> after;
};
// One or two bars a layer.
std::string ImbalanceSvg(const ImbalanceBars& bars);

// Values along a run, one per stretch of iterations. A value that is not finite is left out.
struct Series {
  std::string label;
  std::vector<int64_t> iterations;  // the first one of each stretch
  std::vector<double> values;
  std::vector<double> highest;  // of the same stretches: the upper edge of a band; empty: none
  bool is_bars = false;         // amounts, else a level
};
std::string SeriesSvg(const Series& series);

}  // namespace wideload::statistics
