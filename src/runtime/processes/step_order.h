// What rank 0 tells another process to do in an iteration, as bytes. The other keeps a copy of each
// of its sequences, so that a decode step costs some forty bytes per sequence. Pure; each object is
// used by one thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "rebalance/placement_change.h"
#include "runtime/engine_options.h"
#include "runtime/processes/wire.h"
#include "runtime/scheduler.h"

namespace wideload::runtime {

// To begin, to carry out a part of a plan, to hand in the trace, to copy a prompt that another
// server has computed, or to end.
enum class OrderKind : int32_t { kStart, kStep, kReadTrace, kFetch, kStop };

// What is copied, and where to: see CachedSequence.
struct FetchOrder {
  int32_t server = 0;
  int32_t group = 0;        // of that server's
  int32_t micro_batch = 0;  // of this engine's, into whose cache
  int64_t first_block = 0;
  std::vector<BlockTable> from;
  std::vector<BlockTable> to;
};

// What a step says beside a rank's entries.
struct StepHead {
  int64_t iteration = -1;   // -1: nothing is computed
  int64_t most_tokens = 0;  // that any rank of its stage computes
  int32_t micro_batch = 0;
  int64_t incoming_tokens = 0;  // RankStep's
  bool count_routed = false;
  const rebalance::PlacementChange* change = nullptr;  // null: none
};

// Tables of blocks as bytes and back. Errors: kCorrupt.
void WriteTables(std::span<const BlockTable> tables, ByteWriter& writer);
std::vector<BlockTable> ReadTables(ByteReader& reader);

// Of the side that gives orders: one per rank that takes them. It remembers what the other side
// knows of each sequence.
class OrderWriter {
 public:
  // The next order, for this rank's part of a plan. `bytes` is overwritten.
  void WriteStep(const StepHead& head, std::span<const PlanEntry> entries,
                 std::vector<std::byte>& bytes);
  // An order that says no more than its kind. `bytes` is overwritten.
  static void Write(OrderKind kind, std::vector<std::byte>& bytes);
  // An order to fetch. `bytes` is overwritten.
  static void WriteFetch(const FetchOrder& fetch, std::vector<std::byte>& bytes);
  // The sequence is in no plan to come; the next order says so.
  void Forget(RequestId id);

 private:
  void PutBlocks(const BlockTable& table, size_t first, ByteWriter& writer);

  struct Known {
    size_t num_tokens = 0;
    size_t num_blocks = 0;  // of each class
    int64_t num_preemptions = 0;
  };
  std::map<RequestId, Known> known_;
  std::vector<RequestId> forgotten_;
  std::vector<int32_t> blocks_;
};

struct StepOrder {
  OrderKind kind = OrderKind::kStop;
  int64_t iteration = -1;
  int64_t most_tokens = 0;
  int32_t micro_batch = 0;
  int64_t incoming_tokens = 0;
  bool count_routed = false;
  // As sent: whether it fits the model is for PlacementState to say.
  std::optional<rebalance::PlacementChange> change;
  std::vector<PlanEntry> entries;  // of the reader's own sequences
  // Its blocks in `to` are this engine's; `from` is as sent. Whether one is large enough for the
  // other depends on the server's layout: TakesAll.
  FetchOrder fetch;
};

class OrderReader {
 public:
  // `windows`: kv::Windows of the model's layers.
  OrderReader(const EngineOptions& options, int64_t vocab_size, std::span<const int64_t> windows);

  // Valid until the next call. Errors: kCorrupt naming what an order may not say; then this object
  // is unusable.
  const StepOrder& Read(std::span<const std::byte> bytes);

  size_t num_sequences() const { return sequences_.size(); }

 private:
  class Parser;

  EngineOptions options_;
  int64_t vocab_size_;
  std::vector<kv::BlockClass> classes_;
  std::map<RequestId, std::unique_ptr<Sequence>> sequences_;
  StepOrder order_;
  int64_t num_orders_ = 0;
};

}  // namespace wideload::runtime
