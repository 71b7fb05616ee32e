#include "runtime/processes/step_answer.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::runtime {
namespace {

std::vector<std::byte> WrittenTracks() {
  const trace::TrackData tracks[] = {
      {.rank = 3,
       .name = "rank 3",
       .clock_offset_ns = -5,
       .num_dropped = 7,
       .events = {{.begin_ns = 1, .end_ns = 2, .kind = trace::SpanKind::kPlan}, {}}},
      {.rank = 3, .name = "copy", .events = {}}};
  std::vector<std::byte> bytes;
  WriteTracks(tracks, bytes);
  return bytes;
}

TEST(TracksOfAnAnswer, AreReadAsTheyWereWritten) {
  std::vector<trace::TrackData> tracks(1);
  ReadTracks(WrittenTracks(), tracks);
  ASSERT_EQ(tracks.size(), 3U);
  EXPECT_EQ(tracks[1].rank, 3);
  EXPECT_EQ(tracks[1].name, "rank 3");
  EXPECT_EQ(tracks[1].clock_offset_ns, -5);
  EXPECT_EQ(tracks[1].num_dropped, 7);
  ASSERT_EQ(tracks[1].events.size(), 2U);
  EXPECT_EQ(tracks[1].events[0].end_ns, 2);
  EXPECT_EQ(tracks[1].events[0].kind, trace::SpanKind::kPlan);
  EXPECT_EQ(tracks[2].name, "copy");
}

TEST(TracksOfAnAnswer, AreRefusedWhenTheyAreNotWhole) {
  std::vector<std::byte> bytes = WrittenTracks();
  std::vector<trace::TrackData> tracks;
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THROW(ReadTracks(std::span(bytes).first(size), tracks), Error) << size;
  bytes.resize(bytes.size() + 8);
  EXPECT_THROW(ReadTracks(bytes, tracks), Error);
}

TEST(TracksOfAnAnswer, AreRefusedWithASpanOfNoKind) {
  trace::Event event;
  event.kind = static_cast<trace::SpanKind>(trace::kNumSpanKinds);
  const trace::TrackData track{.events = {event}};
  std::vector<std::byte> bytes;
  WriteTracks(std::span(&track, 1), bytes);
  std::vector<trace::TrackData> tracks;
  EXPECT_THROW(ReadTracks(bytes, tracks), Error);
}

}  // namespace
}  // namespace wideload::runtime
