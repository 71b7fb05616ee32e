#include "runtime/processes/step_order.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace wideload::runtime {
namespace {

// What comes before an entry's new tokens and blocks.
struct EntryHead {
  RequestId id = -1;
  int64_t start = 0;
  int64_t count = 0;
  int64_t first_block = 0;  // where the blocks sent now belong
  uint32_t is_new = 0;
  uint32_t sample = 0;  // 1: any token; 2: the bits of those that are allowed follow
};

struct NewSequence {
  SamplingParams sampling;
  int64_t max_tokens = 0;
  uint64_t index = 0;
  int64_t prompt_length = 0;
  uint64_t prompt_logits = 0;
  int64_t min_tokens = 0;
};

// Generation 0 stands for no change.
void WriteChange(const rebalance::PlacementChange* change, ByteWriter& writer) {
  writer.Put(change != nullptr ? change->generation : int64_t{0});
  if (change == nullptr) return;
  writer.Put(static_cast<uint64_t>(change->layers.size()));
  for (const rebalance::LayerChange& layer : change->layers) {
    writer.Put(layer.moe_layer);
    writer.Put(layer.placement.num_experts);
    writer.Put(layer.placement.num_ranks);
    writer.PutAll(std::span<const ExpertId>(layer.placement.slot_expert));
  }
}

}  // namespace

void WriteTables(std::span<const BlockTable> tables, ByteWriter& writer) {
  writer.Put(static_cast<uint64_t>(tables.size()));
  for (const BlockTable& table : tables) {
    writer.Put(table.num_given_back);
    writer.PutAll(std::span<const int32_t>(table.blocks));
  }
}

std::vector<BlockTable> ReadTables(ByteReader& reader) {
  std::vector<BlockTable> tables;
  for (auto left = reader.Take<uint64_t>(); left > 0; --left) {
    BlockTable& table = tables.emplace_back();
    table.num_given_back = reader.Take<int64_t>();
    const std::span<const int32_t> blocks = reader.TakeAll<int32_t>();
    if (table.num_given_back < 0 || table.num_given_back > std::ssize(blocks))
      Throw(ErrorKind::kCorrupt, "a table of {} blocks of which {} are given back", blocks.size(),
            table.num_given_back);
    table.blocks.assign(blocks.begin(), blocks.end());
  }
  return tables;
}

void OrderWriter::Write(OrderKind kind, std::vector<std::byte>& bytes) {
  ByteWriter(bytes).Put(kind);
}

// Of a prompt that was fetched, what its windows do not see has no blocks: any one will do.
void OrderWriter::PutBlocks(const BlockTable& table, size_t first, ByteWriter& writer) {
  const std::span<const int32_t> blocks = std::span<const int32_t>(table.blocks).subspan(first);
  if (std::ranges::none_of(blocks, [](int32_t block) { return block < 0; }))
    return writer.PutAll(blocks);
  blocks_.assign(blocks.begin(), blocks.end());
  std::ranges::replace_if(
      blocks_, [](int32_t block) { return block < 0; }, 0);
  writer.PutAll(std::span<const int32_t>(blocks_));
}

void OrderWriter::WriteFetch(const FetchOrder& fetch, std::vector<std::byte>& bytes) {
  ByteWriter writer(bytes);
  writer.Put(OrderKind::kFetch);
  writer.Put(fetch.server);
  writer.Put(fetch.group);
  writer.Put(fetch.micro_batch);
  writer.Put(fetch.first_block);
  WriteTables(fetch.from, writer);
  WriteTables(fetch.to, writer);
}

void OrderWriter::WriteStep(const StepHead& head, std::span<const PlanEntry> entries,
                            std::vector<std::byte>& bytes) {
  ByteWriter writer(bytes);
  writer.Put(OrderKind::kStep);
  writer.Put(static_cast<uint32_t>(head.count_routed));
  writer.Put(head.iteration);
  writer.Put(head.most_tokens);
  writer.Put(int64_t{head.micro_batch});
  writer.Put(head.incoming_tokens);
  WriteChange(head.change, writer);
  writer.PutAll(std::span<const RequestId>(forgotten_));
  forgotten_.clear();
  writer.Put(static_cast<uint64_t>(entries.size()));
  for (const PlanEntry& entry : entries) {
    const Sequence& sequence = *entry.sequence;
    const auto [it, is_new] = known_.try_emplace(sequence.id);
    Known& known = it->second;
    // After a preemption other blocks may have been given, from the first on.
    if (known.num_preemptions != sequence.num_preemptions) known.num_blocks = 0;
    writer.Put(EntryHead{.id = sequence.id,
                         .start = entry.start,
                         .count = entry.count,
                         .first_block = static_cast<int64_t>(known.num_blocks),
                         .is_new = is_new,
                         .sample = !entry.sample              ? 0U
                                   : sequence.allowed.empty() ? 1U
                                                              : 2U});
    if (is_new) {
      writer.Put(NewSequence{.sampling = sequence.request.sampling,
                             .max_tokens = sequence.request.max_tokens,
                             .index = sequence.request.index,
                             .prompt_length = sequence.prompt_length,
                             .prompt_logits = sequence.request.prompt_logits,
                             .min_tokens = sequence.request.min_tokens});
      writer.PutAll(std::span<const int32_t>(sequence.request.eos_ids));
      writer.PutAll(std::span<const TokenBias>(sequence.request.logit_bias));
    }
    writer.PutAll(std::span<const int32_t>(sequence.tokens).subspan(known.num_tokens));
    for (const BlockTable& table : sequence.tables) PutBlocks(table, known.num_blocks, writer);
    if (entry.sample && !sequence.allowed.empty())
      writer.PutAll(std::span<const uint64_t>(sequence.allowed));
    known = {.num_tokens = sequence.tokens.size(),
             .num_blocks = sequence.tables.front().blocks.size(),
             .num_preemptions = sequence.num_preemptions};
  }
}

void OrderWriter::Forget(RequestId id) {
  if (known_.erase(id) > 0) forgotten_.push_back(id);
}

// One order.
class OrderReader::Parser {
 public:
  Parser(OrderReader& owner, std::span<const std::byte> bytes) : owner_(owner), reader_(bytes) {}

  void Parse() {
    StepOrder& order = owner_.order_;
    order.entries.clear();
    ++owner_.num_orders_;
    order.kind = reader_.Take<OrderKind>();
    Require(order.kind >= OrderKind::kStart && order.kind <= OrderKind::kStop, "is of kind {}",
            static_cast<int32_t>(order.kind));
    if (order.kind == OrderKind::kStep) {
      order.count_routed = reader_.Take<uint32_t>() != 0;
      order.iteration = reader_.Take<int64_t>();
      order.most_tokens = reader_.Take<int64_t>();
      Require(order.most_tokens >= 0 && order.most_tokens <= owner_.options_.max_num_tokens,
              "is of {} tokens", order.most_tokens);
      const auto micro_batch = reader_.Take<int64_t>();
      Require(micro_batch >= 0 && micro_batch < owner_.options_.num_micro_batches,
              "is of micro-batch {}", micro_batch);
      order.micro_batch = static_cast<int32_t>(micro_batch);
      order.incoming_tokens = reader_.Take<int64_t>();
      Require(order.incoming_tokens >= 0 &&
                  order.incoming_tokens <=
                      (owner_.options_.layout.pp > 1 ? owner_.options_.max_num_tokens : 0),
              "hands over {} tokens", order.incoming_tokens);
      order.change = TakeChange();
      for (const RequestId id : reader_.TakeAll<RequestId>())
        Require(owner_.sequences_.erase(id) == 1, "forgets sequence {}, which is not there", id);
      const auto num_entries = reader_.Take<uint64_t>();
      Require(num_entries <= static_cast<uint64_t>(owner_.options_.max_batch_size),
              "has {} entries", num_entries);
      for (uint64_t i = 0; i < num_entries; ++i) ParseEntry();
      Require(num_tokens_ <= owner_.options_.max_num_tokens, "computes {} tokens", num_tokens_);
      Require(order.iteration >= 0 || num_entries == 0, "computes {} entries", num_entries);
    }
    if (order.kind == OrderKind::kFetch) TakeFetch(order.fetch);
    Require(reader_.is_at_end(), "is longer than its {} entries", order.entries.size());
  }

 private:
  template <class... Args>
  void Require(bool condition, fmt::format_string<Args...> format, Args&&... args) const {
    if (condition) return;
    Throw(ErrorKind::kCorrupt, "the order for iteration {} {}", owner_.order_.iteration,
          fmt::format(format, std::forward<Args>(args)...));
  }

  std::optional<rebalance::PlacementChange> TakeChange() {
    rebalance::PlacementChange change{.generation = reader_.Take<int64_t>(), .layers = {}};
    if (change.generation == 0) return std::nullopt;
    Require(change.generation > 0, "changes placements to generation {}", change.generation);
    // Each layer takes bytes: a count that is too large ends where the message does.
    for (auto left = reader_.Take<uint64_t>(); left > 0; --left) {
      rebalance::LayerChange& layer = change.layers.emplace_back();
      layer.moe_layer = reader_.Take<int32_t>();
      layer.placement.num_experts = reader_.Take<int32_t>();
      layer.placement.num_ranks = reader_.Take<int32_t>();
      Require(layer.placement.num_ranks > 0, "places experts on {} ranks",
              layer.placement.num_ranks);
      const std::span<const ExpertId> slots = reader_.TakeAll<ExpertId>();
      layer.placement.slot_expert.assign(slots.begin(), slots.end());
    }
    return change;
  }

  void TakeFetch(FetchOrder& fetch) {
    fetch.server = reader_.Take<int32_t>();
    fetch.group = reader_.Take<int32_t>();
    fetch.micro_batch = reader_.Take<int32_t>();
    fetch.first_block = reader_.Take<int64_t>();
    fetch.from = ReadTables(reader_);
    fetch.to = ReadTables(reader_);
    const size_t num_classes = owner_.classes_.size();
    Require(fetch.server >= 0 && fetch.group >= 0 && fetch.first_block >= 0 &&
                fetch.from.size() == num_classes && fetch.to.size() == num_classes,
            "fetches from block {} of group {} of server {} in {} and {} tables", fetch.first_block,
            fetch.group, fetch.server, fetch.from.size(), fetch.to.size());
    Require(fetch.micro_batch >= 0 && fetch.micro_batch < owner_.options_.num_micro_batches,
            "fetches for micro-batch {}", fetch.micro_batch);
    for (size_t c = 0; c < num_classes; ++c) {
      const BlockTable& to = fetch.to[c];
      for (auto i = static_cast<size_t>(std::max(fetch.first_block, to.num_given_back));
           i < to.blocks.size(); ++i)
        Require(to.blocks[i] >= 0 && to.blocks[i] < owner_.classes_[c].num_blocks,
                "fetches into block {}", to.blocks[i]);
    }
  }

  void ParseEntry() {
    const auto head = reader_.Take<EntryHead>();
    Sequence& sequence = head.is_new != 0 ? AddSequence(head.id) : Find(head.id);
    // A second entry could take the blocks of the first one away.
    Require(std::exchange(sequence.last_plan, owner_.num_orders_) != owner_.num_orders_,
            "has sequence {} twice", head.id);
    TakeTokens(sequence);
    TakeBlocks(sequence, head.first_block);
    const auto length = static_cast<int64_t>(sequence.tokens.size());
    const size_t num_blocks = sequence.tables.front().blocks.size();
    Require(head.start >= 0 && head.count > 0 && head.start <= length - head.count &&
                kv::BlocksFor(head.start + head.count, owner_.options_.layout.cp) <=
                    static_cast<int64_t>(num_blocks),
            "computes positions {} to {} of sequence {}, which has {} tokens and {} blocks",
            head.start, head.start + head.count, head.id, length, num_blocks);
    TakeAllowed(sequence, head.sample);
    num_tokens_ += head.count;
    owner_.order_.entries.push_back({.sequence = &sequence,
                                     .start = head.start,
                                     .count = head.count,
                                     .sample = head.sample != 0});
  }

  Sequence& Find(RequestId id) const {
    const auto it = owner_.sequences_.find(id);
    Require(it != owner_.sequences_.end(), "continues sequence {}, which is not there", id);
    return *it->second;
  }

  Sequence& AddSequence(RequestId id) {
    const auto start = reader_.Take<NewSequence>();
    const int64_t limit = owner_.options_.max_seq_len;
    Require(start.prompt_length > 0 && start.prompt_length <= limit && start.max_tokens >= 0 &&
                start.max_tokens <= limit - start.prompt_length,
            "begins sequence {} of {} and {} tokens", id, start.prompt_length, start.max_tokens);
    auto sequence = std::make_unique<Sequence>();
    sequence->id = id;
    sequence->prompt_length = start.prompt_length;
    sequence->request.sampling = start.sampling;
    sequence->request.max_tokens = start.max_tokens;
    sequence->request.index = start.index;
    sequence->request.prompt_logits = start.prompt_logits != 0;
    sequence->request.min_tokens = start.min_tokens;
    const std::string wrong = InvalidField(start.sampling, owner_.vocab_size_);
    Require(wrong.empty(), "begins sequence {} whose {}", id, wrong);
    TakeChoiceLimits(*sequence);
    const int64_t length = start.prompt_length + start.max_tokens;
    sequence->tokens.reserve(static_cast<size_t>(length));
    sequence->tables.resize(owner_.classes_.size());
    for (BlockTable& table : sequence->tables)
      table.blocks.reserve(static_cast<size_t>(kv::BlocksFor(length, owner_.options_.layout.cp)));
    const auto [it, is_new] = owner_.sequences_.emplace(id, std::move(sequence));
    Require(is_new, "begins sequence {}, which is there", id);
    return *it->second;
  }

  void TakeAllowed(Sequence& sequence, uint32_t sample) {
    Require(sample <= 2, "samples sequence {} as {}", sequence.id, sample);
    sequence.allowed.clear();
    if (sample != 2) return;
    const std::span<const uint64_t> words = reader_.TakeAll<uint64_t>();
    Require(std::ssize(words) == grammar::TokenWords(owner_.vocab_size_),
            "allows {} words of tokens to sequence {}", words.size(), sequence.id);
    sequence.allowed.assign(words.begin(), words.end());
  }

  void TakeChoiceLimits(Sequence& sequence) {
    Request& request = sequence.request;
    const std::span<const int32_t> eos_ids = reader_.TakeAll<int32_t>();
    request.eos_ids.assign(eos_ids.begin(), eos_ids.end());
    for (const TokenBias& bias : reader_.TakeAll<TokenBias>()) {
      Require(bias.id >= 0 && bias.id < owner_.vocab_size_ && std::isfinite(bias.bias),
              "biases token {} of sequence {} by {}", bias.id, sequence.id, bias.bias);
      request.logit_bias.push_back(bias);
    }
  }

  void TakeTokens(Sequence& sequence) {
    for (const int32_t token : reader_.TakeAll<int32_t>()) {
      Require(token >= 0 && token < owner_.vocab_size_, "has token {} of sequence {}", token,
              sequence.id);
      sequence.tokens.push_back(token);
    }
    Require(static_cast<int64_t>(sequence.tokens.size()) >= sequence.prompt_length,
            "begins sequence {} with {} of {} tokens", sequence.id, sequence.tokens.size(),
            sequence.prompt_length);
    const int64_t longest = sequence.prompt_length + sequence.request.max_tokens;
    Require(static_cast<int64_t>(sequence.tokens.size()) <= longest,
            "has {} tokens of sequence {}, which ends at {}", sequence.tokens.size(), sequence.id,
            longest);
  }

  void TakeBlocks(Sequence& sequence, int64_t first) {
    const size_t known = sequence.tables.front().blocks.size();
    Require(first >= 0 && first <= static_cast<int64_t>(known),
            "gives sequence {} blocks from {} on; it has {}", sequence.id, first, known);
    for (size_t c = 0; c < sequence.tables.size(); ++c) {
      std::vector<int32_t>& blocks = sequence.tables[c].blocks;
      blocks.resize(static_cast<size_t>(first));
      for (const int32_t block : reader_.TakeAll<int32_t>()) {
        Require(block >= 0 && block < owner_.classes_[c].num_blocks, "gives sequence {} block {}",
                sequence.id, block);
        blocks.push_back(block);
      }
      Require(blocks.size() == sequence.tables.front().blocks.size(),
              "gives sequence {} tables of {} and {} blocks", sequence.id,
              sequence.tables.front().blocks.size(), blocks.size());
    }
  }

  OrderReader& owner_;
  ByteReader reader_;
  int64_t num_tokens_ = 0;  // of the entries so far
};

OrderReader::OrderReader(const EngineOptions& options, int64_t vocab_size,
                         std::span<const int64_t> windows)
    : options_(options),
      vocab_size_(vocab_size),
      classes_(kv::BlockClasses(windows, options.num_kv_blocks,
                                {.max_batch_size = options.max_batch_size,
                                 .max_num_tokens = options.max_num_tokens,
                                 .num_ranks = options.layout.cp})) {
  order_.entries.reserve(static_cast<size_t>(options.max_batch_size));
}

const StepOrder& OrderReader::Read(std::span<const std::byte> bytes) {
  Parser(*this, bytes).Parse();
  return order_;
}

}  // namespace wideload::runtime
