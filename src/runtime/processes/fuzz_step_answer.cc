// Answers of another rank as rank 0 reads them: a right one whose bytes the input changes, and
// arbitrary bytes, which are read as its tracks, too. What is read can be used as it is.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "runtime/processes/step_answer.h"

namespace {

using namespace wideload;           // NOLINT(google-build-using-namespace): a program of one file
using namespace wideload::runtime;  // NOLINT(google-build-using-namespace)

constexpr AnswerShape kShape{
    .vocab_size = 6, .num_moe_layers = 2, .num_experts = 3, .num_ranks = 2};

// What was asked for: a decode, a part of a prompt, a prompt whose logits are wanted.
struct Question {
  Question() {
    sequences[2].request.prompt_logits = true;
    entries = {{.sequence = &sequences[0], .start = 4, .count = 1, .sample = true},
               {.sequence = &sequences[1], .start = 0, .count = 3, .sample = false},
               {.sequence = &sequences[2], .start = 0, .count = 2, .sample = true}};
  }
  Sequence sequences[3];
  std::vector<PlanEntry> entries;
};

std::vector<std::byte> RightAnswer(const Question& question) {
  std::vector<float> logits(2 * static_cast<size_t>(kShape.vocab_size), 0.5F);
  std::vector<RankOutput> outputs(3);
  outputs[0].token = 5;
  outputs[0].logprobs = {{.id = 5, .logprob = -1}, {.id = 2, .logprob = -2}};
  outputs[2].token = 0;
  outputs[2].logits = TensorView(DType::kF32, {2, kShape.vocab_size}, logits.data());
  const std::vector<int64_t> rows = {7, 8};
  const std::vector<int32_t> counts(kShape.num_moe_layers * kShape.num_experts, 2);
  const RankExchange exchange;
  const std::vector<int64_t> sent = {4, 3};
  std::vector<std::byte> bytes;
  WriteAnswer(question.entries,
              {.outputs = outputs,
               .computed_rows = rows,
               .routed_counts = counts,
               .exchange = &exchange,
               .sent_rows = sent},
              {.signal = 0, .routed_counts = counts}, bytes);
  return bytes;
}

void Read(const Question& question, const std::vector<std::byte>& bytes, bool count_routed) {
  AnswerReader reader;
  try {
    reader.Read(bytes, {.entries = question.entries, .count_routed = count_routed}, kShape);
  } catch (const Error&) {
    return;
  }
  const RankResult result = reader.result();
  WIDELOAD_CHECK(result.computed_rows.size() == kShape.num_moe_layers, "{} layers",
                 result.computed_rows.size());
  WIDELOAD_CHECK(!count_routed || result.routed_counts.size() == 6, "{} counts",
                 result.routed_counts.size());
  WIDELOAD_CHECK(result.sent_rows.size() == (result.exchange == nullptr ? 0 : 2), "{} ranks",
                 result.sent_rows.size());
  for (size_t i = 0; i < question.entries.size(); ++i) {
    const RankOutput& output = result.outputs[i];
    WIDELOAD_CHECK(output.token >= -1 && output.token < kShape.vocab_size, "token {}",
                   output.token);
    for (const TokenLogprob& logprob : output.logprobs)
      WIDELOAD_CHECK(logprob.id >= 0 && logprob.id < kShape.vocab_size, "token {}", logprob.id);
    if (i == 2) WIDELOAD_CHECK(output.logits.dim(0) == 2, "{} rows", output.logits.dim(0));
  }
}

void ReadAsTracks(const std::vector<std::byte>& bytes) {
  std::vector<trace::TrackData> tracks;
  try {
    ReadTracks(bytes, tracks);
  } catch (const Error&) {
    return;
  }
  std::vector<std::byte> again;
  WriteTracks(tracks, again);
  std::vector<trace::TrackData> read_again;
  ReadTracks(again, read_again);
  WIDELOAD_CHECK(read_again.size() == tracks.size(), "{} tracks", read_again.size());
}

void ReadAsFetched(const std::vector<std::byte>& bytes) {
  try {
    WIDELOAD_CHECK(ReadFetchAnswer(bytes).num_bytes >= 0, "fewer bytes than none");
  } catch (const Error&) {
    // a refusal is an answer
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Question question;
  static const std::vector<std::byte> right = RightAnswer(question);
  if (size == 0) return 0;
  const bool count_routed = data[0] % 2 == 0;
  std::vector<std::byte> bytes(size - 1);  // aligned
  if (size > 1) std::memcpy(bytes.data(), data + 1, size - 1);
  Read(question, bytes, count_routed);
  ReadAsTracks(bytes);
  ReadAsFetched(bytes);
  bytes = right;
  for (size_t i = 1; i + 2 < size; i += 3) {
    const size_t at = (size_t{data[i]} << 8 | data[i + 1]) % (bytes.size() + 1);
    if (at == bytes.size())
      bytes.resize(at + data[i + 2]);
    else
      bytes[at] ^= static_cast<std::byte>(data[i + 2]);
  }
  Read(question, bytes, count_routed);
  return 0;
}
