#include "statistics/html_run_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideload::statistics {
namespace {

using testing::HasSubstr;
using testing::Not;

RunSeries MakeSeries(int num_iterations, size_t max_stretches = 512) {
  RunSeries series(2, 2, max_stretches);
  for (int i = 0; i < num_iterations; ++i) {
    const int64_t rows[] = {3, 1, 0, 0};
    series.Add({.iteration = i,
                .seconds = 0.25,
                .prompt_tokens = 10,
                .generated_tokens = 3,
                .fetched_slots = i == 1 ? 4 : 0},
               rows);
  }
  return series;
}

std::string Page(const RunSeries& series) {
  return FormatHtmlRunReport(series,
                             {.title = "a <run>", .notes = {"8 ranks & more"}, .layers = {1, 3}});
}

TEST(HtmlRunReport, ShowsImbalanceRanksMigrationsAndTokens) {
  const std::string page = Page(MakeSeries(3));
  EXPECT_THAT(page, HasSubstr("<title>a &lt;run&gt;</title>"));
  EXPECT_THAT(page, HasSubstr("8 ranks &amp; more"));
  EXPECT_THAT(page, HasSubstr("<title>layer 1, rank 0: 1.50 x mean</title>"));
  EXPECT_THAT(page, HasSubstr("<title>layer 3: no load</title>"));
  EXPECT_THAT(page, HasSubstr("Slots fetched by iteration, 4 in all"));
  EXPECT_THAT(page, HasSubstr("<title>iteration 1: 4</title>"));
  EXPECT_THAT(page, HasSubstr("Imbalance over 3 iterations: 0.250 on average, 0.250 in the worst"));
  EXPECT_THAT(page, HasSubstr("<tr><th scope=\"row\">1</th><td>0.2500</td><td>10</td><td>3</td>"
                              "<td>0.2500</td><td>0.2500</td><td>0.8333</td><td>4</td></tr>"));
  EXPECT_THAT(page, HasSubstr("<tr><th scope=\"row\">1</th><td>1.500</td><td>0.500</td></tr>"));
}

TEST(HtmlRunReport, SaysWhatAStretchOfIterationsIs) {
  const std::string page = Page(MakeSeries(8, 2));
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">4 to 7</th>"));
  EXPECT_THAT(page, HasSubstr("The band reaches to the worst iteration of a stretch."));
}

TEST(HtmlRunReport, OfAModelWithoutExpertsHasTokensAlone) {
  RunSeries series(0, 1);
  series.Add({.seconds = 1, .generated_tokens = 5}, {});
  const std::string page = FormatHtmlRunReport(series, {.title = "run", .layers = {}});
  EXPECT_THAT(page, HasSubstr("Generated tokens"));
  for (const char* absent : {"mbalance", "Migrations", "rank"})
    EXPECT_THAT(page, Not(HasSubstr(absent))) << absent;
}

TEST(HtmlRunReport, NeedsNothingFromElsewhere) {
  const std::string page = Page(MakeSeries(3));
  for (const char* foreign : {"http:", "https:", "<script", "src=", "@import", "url("})
    EXPECT_THAT(page, Not(HasSubstr(foreign)));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme:dark"));
}

}  // namespace
}  // namespace wideload::statistics
