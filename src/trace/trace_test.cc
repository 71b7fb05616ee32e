#include "trace/trace.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "base/json.h"
#include "trace/trace_file.h"

namespace wideload::trace {
namespace {

std::string Written(std::span<const TrackData> tracks) {
  std::string text;
  WriteTraceJson(tracks, [&](std::string_view piece) { text += piece; });
  return text;
}

TEST(Spans, AreRecordedWithTheirPlaceAndNest) {
  Trace trace;
  Track& track = trace.AddTrack(3, "rank");
  {
    const OnTrack on(&track);
    SetIteration(7);
    const Span outer(SpanKind::kIteration, 5);
    SetLayer(2);
    const Span inner(SpanKind::kWaitRows, 1);
  }
  const Span beside(SpanKind::kHead);  // on no track
  const std::vector<TrackData> tracks = trace.Read();
  ASSERT_EQ(tracks.size(), 1U);
  ASSERT_EQ(tracks[0].events.size(), 2U);
  const Event& inner = tracks[0].events[0];
  const Event& outer = tracks[0].events[1];
  EXPECT_EQ(inner.kind, SpanKind::kWaitRows);
  EXPECT_EQ(inner.iteration, 7);
  EXPECT_EQ(inner.layer, 2);
  EXPECT_EQ(inner.detail, 1);
  EXPECT_EQ(outer.layer, -1);
  EXPECT_LE(outer.begin_ns, inner.begin_ns);
  EXPECT_LE(inner.begin_ns, inner.end_ns);
  EXPECT_LE(inner.end_ns, outer.end_ns);
}

TEST(Spans, OfAThreadThatIsTwoThingsGoToTheTrackOfTheMoment) {
  Trace trace;
  Track& engine = trace.AddTrack(-1, "engine");
  Track& rank = trace.AddTrack(0, "rank");
  const OnTrack on(&engine);
  {
    const OnTrack inside(&rank);
    const Span span(SpanKind::kIteration);
  }
  { const Span span(SpanKind::kSchedule); }
  EXPECT_EQ(rank.Read().events.at(0).kind, SpanKind::kIteration);
  EXPECT_EQ(engine.Read().events.at(0).kind, SpanKind::kSchedule);
}

TEST(Tracks, KeepTheNewestSpansAndCountTheOthers) {
  Track track(0, "rank", 4);
  for (int32_t i = 0; i < 11; ++i) track.Add({.begin_ns = i, .end_ns = i + 1});
  const TrackData data = track.Read();
  EXPECT_EQ(data.num_dropped, 7);
  ASSERT_EQ(data.events.size(), 4U);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(data.events[i].begin_ns, static_cast<int64_t>(7 + i));
}

TEST(TraceJson, HasEverySpanWithItsTrackAndWhatWasLost) {
  const TrackData engine{.rank = -1,
                         .name = "engine",
                         .clock_offset_ns = 1000,
                         .events = {{.begin_ns = 5000, .end_ns = 9000, .iteration = 4}}};
  const TrackData copy{
      .rank = 1,
      .name = "copy0",
      .num_dropped = 12,
      .events = {{.begin_ns = 9500, .end_ns = 9750, .detail = 6, .kind = SpanKind::kCopy},
                 {.begin_ns = 9800, .end_ns = 9800, .kind = SpanKind::kHead}}};
  const TrackData tracks[] = {engine, copy};
  const Json json = ParseJson(Written(tracks), "the trace");
  EXPECT_EQ(json["otherData"]["spans"]["rank 1: copy0"]["dropped"], 12);
  EXPECT_EQ(json["otherData"]["spans"]["rank 1: copy0"]["kept"], 2);
  std::vector<Json> spans;
  std::set<std::string> names;
  for (const Json& event : json["traceEvents"])
    if (event["ph"] == "X")
      spans.push_back(event);
    else if (event["name"] == "process_name" || event["name"] == "thread_name")
      names.insert(event["args"]["name"].get<std::string>());
  EXPECT_EQ(names, (std::set<std::string>{"engine", "rank 1", "copy0"}));
  ASSERT_EQ(spans.size(), 3U);
  EXPECT_EQ(spans[0]["pid"], 0);
  EXPECT_EQ(spans[0]["name"], "schedule");
  EXPECT_EQ(spans[0]["ts"].get<double>(), 0);
  EXPECT_EQ(spans[0]["dur"].get<double>(), 4);
  EXPECT_EQ(spans[0]["args"], (Json{{"iteration", 4}}));
  EXPECT_EQ(spans[1]["pid"], 2);
  EXPECT_EQ(spans[1]["ts"].get<double>(), 3.5);
  EXPECT_EQ(spans[1]["dur"].get<double>(), 0.25);
  EXPECT_EQ(spans[1]["args"], (Json{{"moe_layer", 6}}));
  EXPECT_FALSE(spans[2].contains("args"));
}

TEST(TraceJson, IsADocumentWithoutSpans) {
  EXPECT_TRUE(ParseJson(Written({}), "the trace")["traceEvents"].is_array());
}

TEST(SpanKinds, HaveNamesOfTheirOwn) {
  std::set<std::string> names;
  for (size_t kind = 0; kind < kNumSpanKinds; ++kind)
    names.insert(TextOf(static_cast<SpanKind>(kind)).name);
  EXPECT_EQ(names.size(), kNumSpanKinds);
}

}  // namespace
}  // namespace wideload::trace
