#include "runtime/processes/step_answer.h"

#include "base/error.h"

namespace wideload::runtime {
namespace {

struct AnswerHead {
  uint64_t num_outputs = 0;
  int32_t signal = 0;
  uint32_t has_exchange = 0;
  RankExchange exchange;
};

bool WantsLogits(const PlanEntry& entry) { return entry.sequence->request.prompt_logits; }

template <class... Args>
void Require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (condition) return;
  Throw(ErrorKind::kCorrupt, "an answer with {}", fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace

void WriteAnswer(std::span<const PlanEntry> entries, const RankResult& result,
                 const AnswerExtras& extras, std::vector<std::byte>& bytes) {
  ByteWriter writer(bytes);
  AnswerHead head{.num_outputs = entries.size(), .signal = extras.signal};
  if (result.exchange != nullptr) {
    head.has_exchange = 1;
    head.exchange = *result.exchange;
  }
  writer.Put(head);
  writer.PutAll(result.computed_rows);
  writer.PutAll(result.sent_rows);
  writer.PutAll(extras.routed_counts);
  for (size_t i = 0; i < entries.size(); ++i) {
    const RankOutput& output = result.outputs[i];
    writer.Put(output.token);
    writer.PutAll(std::span<const TokenLogprob>(output.logprobs));
    if (!WantsLogits(entries[i])) continue;
    writer.PutAll(std::span<const float>(
        output.logits.data<float>(), static_cast<size_t>(output.logits.shape().num_elements())));
  }
}

void WriteTracks(std::span<const trace::TrackData> tracks, std::vector<std::byte>& bytes) {
  ByteWriter writer(bytes);
  writer.Put(static_cast<uint64_t>(tracks.size()));
  for (const trace::TrackData& track : tracks) {
    writer.Put(track.rank);
    writer.PutText(track.name);
    writer.Put(track.clock_offset_ns);
    writer.Put(track.num_dropped);
    writer.PutAll(std::span<const trace::Event>(track.events));
  }
}

void ReadTracks(std::span<const std::byte> bytes, std::vector<trace::TrackData>& tracks) {
  ByteReader reader(bytes);
  // Each track takes bytes: a count that is too large ends where the message does.
  for (auto left = reader.Take<uint64_t>(); left > 0; --left) {
    trace::TrackData& track = tracks.emplace_back();
    track.rank = reader.Take<int32_t>();
    track.name = reader.TakeText();
    track.clock_offset_ns = reader.Take<int64_t>();
    track.num_dropped = reader.Take<int64_t>();
    const std::span<const trace::Event> events = reader.TakeAll<trace::Event>();
    track.events.assign(events.begin(), events.end());
    for (const trace::Event& event : events)
      if (static_cast<size_t>(event.kind) >= trace::kNumSpanKinds)
        Throw(ErrorKind::kCorrupt, "a span of kind {}", static_cast<int>(event.kind));
  }
  if (!reader.is_at_end())
    Throw(ErrorKind::kCorrupt, "an answer of {} bytes is too long", bytes.size());
}

void WriteFetchAnswer(const FetchResult& result, std::vector<std::byte>& bytes) {
  ByteWriter writer(bytes);
  writer.Put(result.num_bytes);
  writer.PutText(result.error);
}

FetchResult ReadFetchAnswer(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  FetchResult result{.num_bytes = reader.Take<int64_t>(), .error = {}};
  result.error = reader.TakeText();
  if (!reader.is_at_end() || result.num_bytes < 0)
    Throw(ErrorKind::kCorrupt, "an answer of {} fetched bytes", result.num_bytes);
  return result;
}

void AnswerReader::Read(std::span<const std::byte> bytes, const Asked& asked,
                        const AnswerShape& shape) {
  const std::span<const PlanEntry> entries = asked.entries;
  ByteReader reader(bytes);
  const auto head = reader.Take<AnswerHead>();
  Require(head.num_outputs == entries.size(), "{} outputs for {} entries", head.num_outputs,
          entries.size());
  exchange_ = head.exchange;
  has_exchange_ = head.has_exchange != 0;
  computed_rows_ = reader.TakeAll<int64_t>();
  Require(computed_rows_.size() == shape.num_moe_layers, "rows of {} layers of {}",
          computed_rows_.size(), shape.num_moe_layers);
  for (const int64_t rows : computed_rows_) Require(rows >= 0, "{} computed rows", rows);
  sent_rows_ = reader.TakeAll<int64_t>();
  Require(sent_rows_.size() == (has_exchange_ ? shape.num_ranks : 0), "rows to {} ranks of {}",
          sent_rows_.size(), shape.num_ranks);
  extras_ = {.signal = head.signal, .routed_counts = reader.TakeAll<int32_t>()};
  const size_t num_counts = extras_.routed_counts.size();
  Require(num_counts == shape.num_moe_layers * shape.num_experts ||
              (num_counts == 0 && !asked.count_routed),
          "{} routed counts for {} layers of {} experts", num_counts, shape.num_moe_layers,
          shape.num_experts);
  if (outputs_.size() < entries.size()) outputs_.resize(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) ReadOutput(reader, entries[i], shape, outputs_[i]);
  Require(reader.is_at_end(), "{} bytes, which are too many", bytes.size());
}

void AnswerReader::ReadOutput(ByteReader& reader, const PlanEntry& entry, const AnswerShape& shape,
                              RankOutput& output) {
  output.token = reader.Take<int32_t>();
  Require(output.token >= -1 && output.token < (entry.sample ? shape.vocab_size : 0),
          "token {} of a vocabulary of {}", output.token, shape.vocab_size);
  const auto logprobs = reader.TakeAll<TokenLogprob>();
  for (const TokenLogprob& logprob : logprobs)
    Require(logprob.id >= 0 && logprob.id < shape.vocab_size, "a log probability of token {}",
            logprob.id);
  output.logprobs.assign(logprobs.begin(), logprobs.end());
  output.logits = {};
  if (!WantsLogits(entry)) return;
  const std::span<const float> logits = reader.TakeAll<float>();
  Require(logits.size() == static_cast<size_t>(entry.count * shape.vocab_size),
          "{} logits for {} positions of {}", logits.size(), entry.count, shape.vocab_size);
  // A TensorView does not say whether its bytes may be written; these are only read.
  output.logits =
      TensorView(DType::kF32, {entry.count, shape.vocab_size}, const_cast<float*>(logits.data()));
}

RankResult AnswerReader::result() const {
  return {.outputs = outputs_,
          .computed_rows = computed_rows_,
          .routed_counts = extras_.routed_counts,
          .exchange = has_exchange_ ? &exchange_ : nullptr,
          .sent_rows = sent_rows_};
}

}  // namespace wideload::runtime
