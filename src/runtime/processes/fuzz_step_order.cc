// Orders of rank 0 as another rank reads them: arbitrary bytes, and the orders of a run whose bytes
// the input changes, on any layout, of a model with windows or of requests that share blocks. What
// is read is what a rank can carry out.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "moe/layout.h"
#include "runtime/processes/step_order.h"
#include "runtime/processes/testing.h"

namespace {

using namespace wideload;           // NOLINT(google-build-using-namespace): a program of one file
using namespace wideload::runtime;  // NOLINT(google-build-using-namespace)

// Takes the input apart; zeros follow its end.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint8_t Next() { return at_ < size_ ? data_[at_++] : uint8_t{0}; }
  uint32_t NextPair() {
    const uint32_t high = Next();
    return high << 8 | Next();
  }
  bool is_at_end() const { return at_ >= size_; }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

// What the input chooses: an engine, and the windows of its model's layers.
struct Setting {
  EngineOptions options;
  std::span<const int64_t> windows;

  SchedulerOptions ForScheduler() const {
    SchedulerOptions of_scheduler = SchedulerOptionsOf(options, windows);
    of_scheduler.num_micro_batches = options.num_micro_batches;
    return of_scheduler;
  }
  OrderReader MakeReader() const { return OrderReader(options, kSmallVocab, windows); }
};

// The small engine with every kind of layout; requests are as much longer as more ranks share them.
EngineOptions DrawOptions(uint8_t draw) {
  EngineOptions options = SmallOptions();
  parallel::Layout& layout = options.layout;
  layout = {
      .tp = 1 + draw % 2, .dp = 1 + draw / 2 % 2, .cp = 1 << draw / 4 % 4, .pp = 1 + draw / 16 % 3};
  layout.moe_tp = layout.tp;
  layout.moe_ep = layout.dp * layout.cp;
  parallel::ValidateLayout(layout);
  options.num_micro_batches = 1 + draw / 48 % layout.pp;
  options.max_num_tokens *= layout.cp;
  options.max_seq_len *= layout.cp;
  return options;
}

void CheckBlocks(const Setting& setting, const std::vector<BlockTable>& tables, int64_t end) {
  const std::vector<kv::BlockClass> classes = BlockClasses(setting.ForScheduler());
  WIDELOAD_CHECK(tables.size() == classes.size(), "{} tables", tables.size());
  for (size_t c = 0; c < tables.size(); ++c) {
    WIDELOAD_CHECK(std::ssize(tables[c].blocks) >= kv::BlocksFor(end, setting.options.layout.cp),
                   "{} blocks for {} positions", tables[c].blocks.size(), end);
    for (const int32_t block : tables[c].blocks)
      WIDELOAD_CHECK(block >= 0 && block < classes[c].num_blocks, "block {}", block);
  }
}

// As PlacementState does, which has a model.
void CheckChange(const rebalance::PlacementChange& change) {
  const moe::MoeShape shape{.num_experts = 4, .layers = {0, 1}};
  const moe::MoeLayout layout{.num_ranks = 2, .num_slots = 6, .chunk_tokens = 40};
  for (const rebalance::LayerChange& layer : change.layers) {
    if (layer.moe_layer < 0 || layer.moe_layer >= shape.num_layers()) continue;
    try {
      moe::ValidatePlacement(shape, layout, layer.moe_layer, layer.placement);
    } catch (const Error&) {
      // a refusal is an answer
    }
  }
}

void CheckFetch(const Setting& setting, const FetchOrder& fetch) {
  const std::vector<kv::BlockClass> classes = BlockClasses(setting.ForScheduler());
  WIDELOAD_CHECK(fetch.micro_batch >= 0 && fetch.micro_batch < setting.options.num_micro_batches,
                 "micro-batch {}", fetch.micro_batch);
  WIDELOAD_CHECK(fetch.to.size() == classes.size() && fetch.from.size() == classes.size(),
                 "tables from {} to {}", fetch.from.size(), fetch.to.size());
  for (size_t c = 0; c < classes.size(); ++c)
    for (auto i = std::max(fetch.first_block, fetch.to[c].num_given_back);
         i < std::ssize(fetch.to[c].blocks); ++i) {
      const int32_t block = fetch.to[c].blocks[static_cast<size_t>(i)];
      WIDELOAD_CHECK(block >= 0 && block < classes[c].num_blocks, "block {}", block);
    }
}

void CheckOrder(const Setting& setting, const StepOrder& order) {
  if (order.kind == OrderKind::kFetch) CheckFetch(setting, order.fetch);
  if (order.kind != OrderKind::kStep) return;
  if (order.change) CheckChange(*order.change);
  const EngineOptions& options = setting.options;
  WIDELOAD_CHECK(order.micro_batch >= 0 && order.micro_batch < options.num_micro_batches,
                 "micro-batch {}", order.micro_batch);
  WIDELOAD_CHECK(order.incoming_tokens >= 0 && order.incoming_tokens <= options.max_num_tokens,
                 "{} tokens come in", order.incoming_tokens);
  WIDELOAD_CHECK(order.iteration >= 0 || order.entries.empty(), "{} entries of no iteration",
                 order.entries.size());
  WIDELOAD_CHECK(std::ssize(order.entries) <= options.max_batch_size, "{} entries",
                 order.entries.size());
  int64_t num_tokens = 0;
  for (const PlanEntry& entry : order.entries) {
    const Sequence& sequence = *entry.sequence;
    WIDELOAD_CHECK(entry.start >= 0 && entry.count > 0 &&
                       entry.start + entry.count <= std::ssize(sequence.tokens),
                   "positions {} and {} more", entry.start, entry.count);
    num_tokens += entry.count;
    for (const int32_t token : sequence.tokens)
      WIDELOAD_CHECK(token >= 0 && token < kSmallVocab, "token {}", token);
    WIDELOAD_CHECK(std::ssize(sequence.tokens) <= options.max_seq_len, "{} tokens",
                   sequence.tokens.size());
    WIDELOAD_CHECK(sequence.allowed.empty() ||
                       std::ssize(sequence.allowed) == grammar::TokenWords(kSmallVocab),
                   "{} words of tokens", sequence.allowed.size());
    WIDELOAD_CHECK(InvalidField(sequence.request.sampling, kSmallVocab).empty(), "sampling");
    CheckBlocks(setting, sequence.tables, entry.start + entry.count);
  }
  WIDELOAD_CHECK(num_tokens <= options.max_num_tokens, "{} tokens", num_tokens);
}

void ReadAnyBytes(const Setting& setting, const uint8_t* data, size_t size) {
  std::vector<std::byte> bytes(size);  // aligned
  if (size > 0) std::memcpy(bytes.data(), data, size);
  try {
    CheckOrder(setting, setting.MakeReader().Read(bytes));
  } catch (const Error&) {
    // a refusal is an answer
  }
}

// An order to fetch of which the input changes bytes.
void ReadChangedFetch(const Setting& setting, const uint8_t* data, size_t size) {
  const size_t num_classes = BlockClasses(setting.ForScheduler()).size();
  const FetchOrder right{
      .server = 1,
      .group = 1,
      .first_block = 1,
      .from = std::vector(num_classes, BlockTable{.blocks = {7, 8, 9}, .num_given_back = 1}),
      .to = std::vector(num_classes, BlockTable{.blocks = {0, 1, 2}, .num_given_back = 0})};
  std::vector<std::byte> bytes;
  OrderWriter::WriteFetch(right, bytes);
  for (size_t i = 0; i + 2 < size; i += 3)
    bytes[(data[i] + size_t{256} * data[i + 1]) % bytes.size()] = std::byte{data[i + 2]};
  try {
    CheckOrder(setting, setting.MakeReader().Read(bytes));
  } catch (const Error&) {
    // a refusal is an answer
  }
}

Request NextRequest(const Setting& setting, Bytes& input, uint64_t index) {
  Request request;
  const auto ranks = static_cast<size_t>(setting.options.layout.cp);
  request.prompt.assign(1 + input.Next() % 48 * ranks, static_cast<int32_t>(index % 3));
  request.max_tokens = input.Next() % 40;
  request.index = index;
  request.sampling.num_logprobs = input.Next() % 3 - 1;
  request.prompt_logits = index % 3 == 0;
  request.eos_ids.assign(index % 3, 7);
  request.logit_bias.assign(index % 2, {.id = 3, .bias = 1});
  return request;
}

// A rank that reads all orders of a run, some of which have a wrong byte or end early.
class ChangedRun {
 public:
  ChangedRun(const Setting& setting, const uint8_t* data, size_t size)
      : setting_(setting),
        input_(data, size),
        scheduler_(setting.ForScheduler()),
        reader_(setting.MakeReader()) {}

  // Errors: Error of the reader, which has seen enough then.
  void Run() {
    for (int64_t iteration = 0; iteration < 60 && !input_.is_at_end(); ++iteration) {
      const uint8_t what = input_.Next();
      if (what % 2 == 0) {
        const auto id = static_cast<RequestId>(next_++);
        scheduler_.Add(id, NextRequest(setting_, input_, static_cast<uint64_t>(id)));
      }
      if (what % 16 == 1 && next_ > 0) Retire(input_.Next() % next_);
      if (what % 8 == 5 && setting_.options.layout.pp > 1) PassStep();
      const int32_t micro_batch = what / 32 % setting_.options.num_micro_batches;
      const StepPlan& plan = scheduler_.Plan(micro_batch);
      for (const PlanEntry& entry : plan.groups[0])
        if (entry.sequence->id % 4 == 1)
          entry.sequence->allowed.assign(static_cast<size_t>(grammar::TokenWords(kSmallVocab)),
                                         what);
      writer_.WriteStep({.iteration = iteration,
                         .micro_batch = micro_batch,
                         .incoming_tokens = IncomingTokens(what),
                         .change = what % 8 == 3 ? &change_ : nullptr},
                        plan.groups[0], bytes_);
      if (what >= 128) ChangeOrder();
      CheckOrder(setting_, reader_.Read(bytes_));
      Complete(plan);
    }
  }

 private:
  // That another stage hands over.
  int64_t IncomingTokens(uint8_t what) const {
    return setting_.options.layout.pp > 1 ? what % (setting_.options.max_num_tokens + 1) : 0;
  }
  // A step in which the rank's stage has no micro-batch, and the one before it may have one.
  void PassStep() {
    writer_.WriteStep({.incoming_tokens = IncomingTokens(input_.Next())}, {}, bytes_);
    if (input_.Next() >= 128) ChangeOrder();
    CheckOrder(setting_, reader_.Read(bytes_));
  }
  void Retire(RequestId id) {
    scheduler_.Retire(id);
    writer_.Forget(id);
  }
  void ChangeOrder() {
    const size_t at = input_.NextPair() % bytes_.size();
    if (const uint8_t value = input_.Next(); value == 255)
      bytes_.resize(at);
    else
      bytes_[at] ^= static_cast<std::byte>(value);
  }
  void Complete(const StepPlan& plan) {
    for (const auto& entries : plan.groups)
      for (const PlanEntry& entry : entries) {
        const RequestId id = entry.sequence->id;
        if (scheduler_.Complete(entry, entry.sample ? 5 : -1) != FinishReason::kNone) Retire(id);
      }
  }

  const Setting& setting_;
  Bytes input_;
  Scheduler scheduler_;
  OrderWriter writer_;
  OrderReader reader_;
  rebalance::PlacementChange change_{
      .generation = 1,
      .layers = {{.moe_layer = 0, .placement = eplb::ContiguousPlacement(4, 6, 2)}}};
  std::vector<std::byte> bytes_;
  int64_t next_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  Setting setting{.options = DrawOptions(data[1]), .windows = kSmallWindows};
  if (data[0] % 8 >= 4) setting.windows = kNoWindows;
  if (data[0] % 4 == 0) {
    ReadAnyBytes(setting, data + 2, size - 2);
    return 0;
  }
  if (data[0] % 16 == 9) {
    ReadChangedFetch(setting, data + 2, size - 2);
    return 0;
  }
  try {
    ChangedRun(setting, data + 2, size - 2).Run();
  } catch (const Error&) {
    // a refusal is an answer
  }
  return 0;
}
