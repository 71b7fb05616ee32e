// What a process answers to an order: what its rank's part of the iteration gave, or what it has
// traced, as bytes. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/cached_prompt.h"
#include "runtime/processes/wire.h"
#include "runtime/rank.h"
#include "trace/trace.h"

namespace wideload::runtime {

// What an answer holds beside the rank's result.
struct AnswerExtras {
  int32_t signal = 0;                        // that asked this process to end; 0: none
  std::span<const int32_t> routed_counts{};  // [MoE layers * experts] when asked for
};

// `entries` are those of the order; logits are sent for those with prompt_logits. `bytes` is
// overwritten.
void WriteAnswer(std::span<const PlanEntry> entries, const RankResult& result,
                 const AnswerExtras& extras, std::vector<std::byte>& bytes);

// Overwrites `bytes`.
void WriteTracks(std::span<const trace::TrackData> tracks, std::vector<std::byte>& bytes);
// Adds what was written. Errors: kCorrupt.
void ReadTracks(std::span<const std::byte> bytes, std::vector<trace::TrackData>& tracks);

// What came of an order to fetch. Overwrites `bytes`.
void WriteFetchAnswer(const FetchResult& result, std::vector<std::byte>& bytes);
// Errors: kCorrupt.
FetchResult ReadFetchAnswer(std::span<const std::byte> bytes);

// What the answers of a run have in common.
struct AnswerShape {
  int64_t vocab_size = 0;
  size_t num_moe_layers = 0;
  size_t num_experts = 0;
  size_t num_ranks = 0;  // of its stage
};

// What was asked for.
struct Asked {
  std::span<const PlanEntry> entries;
  bool count_routed = false;
};

class AnswerReader {
 public:
  // Keeps views of `bytes`, which must stay until the next Read. Errors: kCorrupt when the answer
  // does not fit what was asked for.
  void Read(std::span<const std::byte> bytes, const Asked& asked, const AnswerShape& shape);

  // Of the answer read last.
  RankResult result() const;
  const AnswerExtras& extras() const { return extras_; }

 private:
  void ReadOutput(ByteReader& reader, const PlanEntry& entry, const AnswerShape& shape,
                  RankOutput& output);

  std::vector<RankOutput> outputs_;
  std::span<const int64_t> computed_rows_;
  std::span<const int64_t> sent_rows_;
  RankExchange exchange_;
  bool has_exchange_ = false;
  AnswerExtras extras_;
};

}  // namespace wideload::runtime
