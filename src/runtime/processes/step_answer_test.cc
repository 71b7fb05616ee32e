#include "runtime/processes/step_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"

namespace wideload::runtime {
namespace {

constexpr AnswerShape kShape{
    .vocab_size = 6, .num_moe_layers = 2, .num_experts = 3, .num_ranks = 2};

// Answers to a decode and to a prompt whose logits are wanted.
class Answers : public testing::Test {
 protected:
  Answers() {
    sequences_[1].request.prompt_logits = true;
    entries_ = {{.sequence = &sequences_[0], .start = 4, .count = 1, .sample = true},
                {.sequence = &sequences_[1], .start = 0, .count = 2, .sample = false}};
    outputs_[0].token = 5;
    outputs_[0].logprobs = {{.id = 5, .logprob = -1}, {.id = 2, .logprob = -2}};
    outputs_[1].logits = TensorView(DType::kF32, {2, 6}, logits_.data());
  }

  void Send(AnswerReader& reader) {
    WriteAnswer(entries_,
                {.outputs = outputs_,
                 .computed_rows = rows_,
                 .exchange = has_exchange_ ? &exchange_ : nullptr,
                 .sent_rows = sent_},
                {.signal = 15, .routed_counts = counts_}, bytes_);
    reader.Read(bytes_, {.entries = entries_, .count_routed = true}, kShape);
  }
  void ExpectRefused(const std::string& reason) {
    AnswerReader reader;
    try {
      Send(reader);
      FAIL() << "taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
      EXPECT_THAT(error.what(), testing::HasSubstr(reason));
    }
  }

  std::array<Sequence, 2> sequences_;
  std::vector<PlanEntry> entries_;
  std::vector<float> logits_ = std::vector<float>(12, 0.5F);
  std::vector<RankOutput> outputs_ = std::vector<RankOutput>(2);
  std::vector<int64_t> rows_ = {7, 8};
  std::vector<int32_t> counts_ = {1, 2, 3, 4, 5, 6};
  RankExchange exchange_;
  bool has_exchange_ = true;
  std::vector<int64_t> sent_ = {9, 4};
  std::vector<std::byte> bytes_;
};

TEST_F(Answers, ComeWhole) {
  AnswerReader reader;
  Send(reader);
  EXPECT_EQ(reader.result().outputs[0].token, 5);
  EXPECT_EQ(reader.result().outputs[0].logprobs[1].id, 2);
  EXPECT_EQ(reader.result().outputs[1].logits.dim(0), 2);
  EXPECT_EQ(reader.result().computed_rows[1], 8);
  EXPECT_EQ(reader.result().routed_counts[5], 6);
  EXPECT_EQ(reader.result().sent_rows[1], 4);
  EXPECT_EQ(reader.extras().signal, 15);
}

TEST_F(Answers, AreRefusedWithTokensThatAreNone) {
  outputs_[0].token = 6;
  ExpectRefused("token 6 of a vocabulary of 6");
  outputs_[0].token = -2;
  ExpectRefused("token -2");
  outputs_[0].token = 5;
  outputs_[0].logprobs[1].id = 6;
  ExpectRefused("a log probability of token 6");
}

TEST_F(Answers, AreRefusedWithATokenThatNobodyAskedFor) {
  outputs_[1].token = 0;
  ExpectRefused("token 0");
}

TEST_F(Answers, AreRefusedWithOtherLayersOrExperts) {
  rows_.pop_back();
  ExpectRefused("rows of 1 layers of 2");
  rows_ = {7, -8};
  ExpectRefused("-8 computed rows");
  rows_ = {7, 8};
  counts_.pop_back();
  ExpectRefused("5 routed counts");
  counts_.clear();
  ExpectRefused("0 routed counts");
}

TEST_F(Answers, AreRefusedWithRowsToOtherRanks) {
  sent_.pop_back();
  ExpectRefused("rows to 1 ranks of 2");
  has_exchange_ = false;
  ExpectRefused("rows to 1 ranks");
  sent_.clear();
  AnswerReader reader;
  Send(reader);
  EXPECT_EQ(reader.result().exchange, nullptr);
}

TEST_F(Answers, AreRefusedWhereverTheyAreCutOff) {
  AnswerReader reader;
  Send(reader);
  for (size_t size = 0; size < bytes_.size(); ++size)
    EXPECT_THROW(reader.Read(std::span(bytes_).first(size),
                             {.entries = entries_, .count_routed = true}, kShape),
                 Error)
        << size;
}

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

TEST(FetchAnswer, SaysWhatCameOrWhyNotAndIsRefusedWhenItIsNotWhole) {
  std::vector<std::byte> bytes;
  WriteFetchAnswer({.num_bytes = 12, .error = "why"}, bytes);
  EXPECT_EQ(ReadFetchAnswer(bytes).num_bytes, 12);
  EXPECT_EQ(ReadFetchAnswer(bytes).error, "why");
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THROW(ReadFetchAnswer(std::span(bytes).first(size)), Error) << size;
  WriteFetchAnswer({.num_bytes = -1, .error = ""}, bytes);
  EXPECT_THROW(ReadFetchAnswer(bytes), Error);
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
