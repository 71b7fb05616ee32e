#include "statistics/html_report.h"

#include <gmock/gmock.h>

#include "statistics/html_charts.h"

namespace wideload::statistics {
namespace {

using testing::HasSubstr;
using testing::Not;

// Two layers of four experts on two ranks; expert 0 of layer 3 is twice as busy as the mean.
ExpertStatistics MakeStatistics() {
  return {.num_experts = 4,
          .experts_per_token = 2,
          .ep_size = 2,
          .iter_start = 5,
          .num_iterations = 1,
          .layers = {3, 7},
          .num_ranks = 1,
          .counts = {8, 2, 2, 4, 1, 1, 1, 1}};
}

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(HtmlReport, DrawsEveryRankOfEveryLayer) {
  const std::string page = FormatHtmlReport(MakeStatistics(), {.source = "run"});
  EXPECT_THAT(page, HasSubstr("<title>layer 3, rank 0: 1.25 x mean</title>"));
  EXPECT_THAT(page, HasSubstr("<title>layer 7, rank 1: 1.00 x mean</title>"));
  EXPECT_EQ(Count(page, " x mean</title>"), 4U);
  EXPECT_THAT(page, HasSubstr("the busiest expert of a layer gets 1.50 times the mean on average"));
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">3</th><td>8.0</td><td>2.8</td><td>0.2500</td>"));
}

TEST(HtmlReport, ShowsBeforeAndAfterOfAProjection) {
  const EplbConfig config{.num_slots = 6,
                          .layers = {{3, {0, 1, 2, 0, 3, 2}}, {7, {0, 1, 2, 3, 0, 1}}}};
  const std::string page = FormatHtmlReport(
      MakeStatistics(),
      {.source = "run", .ep_size = 2, .projection = &config, .projection_source = "plan.yaml"});
  EXPECT_EQ(Count(page, " x mean</title>"), 8U);
  EXPECT_THAT(page, HasSubstr("After: plan.yaml with 6 slots on 2 ranks"));
  EXPECT_THAT(page, HasSubstr("<title>layer 3 before: 0.2500</title>"));
  // 4 + 2 + 1 against 4 + 4 + 1
  EXPECT_THAT(page, HasSubstr("<title>layer 3 after: 0.1250</title>"));
}

TEST(HtmlReport, NeedsNothingFromElsewhere) {
  const std::string page = FormatHtmlReport(MakeStatistics(), {.source = "run"});
  for (const char* foreign : {"http:", "https:", "<script", "src=", "@import", "url("})
    EXPECT_THAT(page, Not(HasSubstr(foreign)));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme:dark"));
}

TEST(HtmlReport, EscapesNames) {
  const EplbConfig config{.num_slots = 4, .layers = {{3, {0, 1, 2, 3}}, {7, {0, 1, 2, 3}}}};
  const std::string page =
      FormatHtmlReport(MakeStatistics(), {.source = "<b>&\"run\"",
                                          .projection = &config,
                                          .projection_source = "\"><script>x</script>"});
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("<b>")));
  EXPECT_THAT(page, HasSubstr("&lt;b&gt;&amp;&quot;run&quot;"));
  EXPECT_EQ(EscapeHtml("it's"), "it&#39;s");
}

TEST(HtmlReport, ShowsALayerWithoutLoadAsSuchAndLeavesItOut) {
  ExpertStatistics statistics = MakeStatistics();
  statistics.counts = {8, 2, 2, 4, 0, 0, 0, 0};
  const std::string page = FormatHtmlReport(statistics, {.source = "run"});
  EXPECT_THAT(page, HasSubstr("<title>layer 7: no load</title>"));
  EXPECT_EQ(Count(page, " x mean</title>"), 2U);
  EXPECT_THAT(page, HasSubstr("Layers without any load, left out of the figures: 7"));
  EXPECT_THAT(page, HasSubstr("gets 2.00 times the mean on average"));
  EXPECT_THAT(page, HasSubstr("<dt>Imbalance ratio</dt><dd>0.250</dd>"));
}

TEST(HtmlReport, ShowsTheSlotsOfARunThatCountedThem) {
  ExpertStatistics slots = MakeStatistics();
  slots.num_experts = 6;
  slots.counts = {8, 1, 1, 1, 4, 1, 1, 1, 1, 1, 1, 1};
  const std::string page = FormatHtmlReport(MakeStatistics(), {.source = "run", .slots = &slots});
  EXPECT_THAT(page, HasSubstr("Recorded: the 6 slots of the run on 2 ranks"));
  EXPECT_THAT(page, HasSubstr("<title>layer 3, rank 0: 1.25 x mean</title>"));
}

TEST(HtmlReport, ShowsLayersWithoutLoad) {
  ExpertStatistics statistics = MakeStatistics();
  statistics.counts = std::vector<int64_t>(8, 0);
  const std::string page = FormatHtmlReport(statistics, {.source = "run"});
  EXPECT_THAT(page, HasSubstr("no load"));
  EXPECT_THAT(page, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace wideload::statistics
