#include "tests/ranks/exchange_load.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "base/wait.h"
#include "parallel/mapping.h"

namespace wideload::exchange {
namespace {

uint64_t Hash(uint64_t a, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0) {
  uint64_t h = 0x243F6A8885A308D3ULL;
  for (const uint64_t v : {a, b, c, d}) {
    h = (h ^ v) * 0x9E3779B97F4A7C15ULL;
    h ^= h >> 31;
    h *= 0xBF58476D1CE4E5B9ULL;
    h ^= h >> 29;
  }
  return h;
}

float Fraction(uint64_t h) { return static_cast<float>(h >> 40) / 16777216.0F - 0.5F; }

struct Token {
  std::vector<float> x;         // [hidden]
  std::vector<int32_t> expert;  // [K], -1 masked
  std::vector<float> weight;    // [K]
};

Token MakeToken(const Load& load, int layer, int64_t index) {
  const auto t = static_cast<uint64_t>(index);
  const auto l = static_cast<uint64_t>(layer);
  Token token;
  for (int64_t i = 0; i < load.hidden; ++i)
    token.x.push_back(Fraction(Hash(load.seed, l, t, static_cast<uint64_t>(i))));
  const auto num_experts = static_cast<uint64_t>(load.num_experts);
  // Those of one rank under the contiguous placement, as far as it has enough.
  const uint64_t span =
      load.routing == Routing::kAllToOneRank ? static_cast<uint64_t>(load.top_k) : num_experts;
  const uint64_t first = Hash(load.seed, l, t, 1000) % span;
  const uint64_t step = 1 + 2 * (Hash(load.seed, l, t, 1001) % 2);
  for (int k = 0; k < load.top_k; ++k) {
    const auto uk = static_cast<uint64_t>(k);
    auto expert = static_cast<int32_t>((first + uk * step) % span);
    if (load.routing == Routing::kMasked && Hash(load.seed, l, t, 2000 + uk) % 3 == 0) expert = -1;
    token.expert.push_back(expert);
    token.weight.push_back(Fraction(Hash(load.seed, l, t, 3000 + uk)) + 0.6F);
  }
  return token;
}

int64_t NumTokens(const Load& load) {
  return load.routing == Routing::kNoToken ? 0 : load.num_tokens;
}

parallel::Shard TokensOf(const Load& load, int rank, int layer) {
  const int64_t count = NumTokens(load);
  if (load.share == Share::kEven) return parallel::ShardOf(count, load.num_ranks, rank);
  const int last = load.num_ranks - 1;
  if (load.share == Share::kOnlyLastRank) return {rank == last ? 0 : count, count};
  // Cuts at random places; some ranks get nothing.
  const auto cut = [&](int r) -> int64_t {
    if (r <= 0) return 0;
    if (r > last) return count;
    std::vector<int64_t> cuts;
    for (int i = 1; i <= last; ++i)
      cuts.push_back(static_cast<int64_t>(
          Hash(load.seed, 77, static_cast<uint64_t>(layer), static_cast<uint64_t>(i)) %
          static_cast<uint64_t>(count + 1)));
    std::sort(cuts.begin(), cuts.end());
    return cuts[static_cast<size_t>(r - 1)];
  };
  return {cut(rank), cut(rank + 1)};
}

// One rank in one layer.
class LayerRun {
 public:
  LayerRun(const Load& load, Exchange& exchange, int rank, std::vector<float>& values,
           const Probe& probe, LoadRows& rows)
      : load_(load),
        exchange_(exchange),
        rank_(rank),
        values_(values),
        probe_(probe),
        rows_(rows),
        placement_(PlacementOf(load)),
        table_(eplb::MakeRoutingTable(placement_)) {}

  void Run(int layer) {
    layer_ = layer;
    const parallel::Shard shard = TokensOf(load_, rank_, layer);
    tokens_.clear();
    for (int64_t t = shard.begin; t < shard.end; ++t) tokens_.push_back(MakeToken(load_, layer, t));
    first_token_ = shard.begin;
    first_round_ = round_;
    if (load_.is_free) return RunFree();
    load_.is_pipelined&& load_.num_buffers > 1 ? RunPipelined() : RunInTurn();
  }

  // After the last layer: computes what others still send.
  void Finish() {
    while (load_.is_free && !exchange_.HasServedAll())
      if (!Serve()) exchange_.WaitForWork();
    rows_.Finish();
  }

 private:
  int64_t ChunkBegin(int64_t round) const {
    const auto count = static_cast<int64_t>(tokens_.size());
    return std::min((round - first_round_) * load_.max_rows, count);
  }

  void Call(const char* name, int64_t round) {
    if (probe_) probe_(rank_, name, round);
    if (!load_.is_skewed) return;
    const uint64_t h = Hash(load_.seed, static_cast<uint64_t>(rank_), static_cast<uint64_t>(round),
                            static_cast<uint64_t>(name[0]) * 256 + static_cast<uint64_t>(name[1]));
    if (h % 17 == 0) rows_.Pause();
    if (h % 3 != 0) return;
    for (uint64_t i = (h >> 8) % 3; i > 0; --i) YieldThread();
    for (uint64_t i = (h >> 16) % 500; i > 0; --i) CpuPause();
  }

  void Publish(int64_t round) {
    Call("PublishCounts", round);
    std::vector<int32_t> counts(static_cast<size_t>(load_.num_experts));
    for (int64_t t = ChunkBegin(round); t < ChunkBegin(round + 1); ++t)
      for (const int32_t e : tokens_[static_cast<size_t>(t)].expert)
        if (e >= 0) ++counts[static_cast<size_t>(e)];
    exchange_.PublishCounts(counts, ChunkBegin(round + 1) < static_cast<int64_t>(tokens_.size()));
  }

  bool WaitCounts(int64_t round) {
    Call("WaitCounts", round);
    return exchange_.WaitCounts().more;
  }

  void Dispatch(int64_t round) {
    Call("Dispatch", round);
    std::vector<float> rows;
    std::vector<int32_t> slots;
    const int64_t begin = ChunkBegin(round);
    const int64_t end = ChunkBegin(round + 1);
    for (int64_t t = begin; t < end; ++t) {
      const Token& token = tokens_[static_cast<size_t>(t)];
      rows.insert(rows.end(), token.x.begin(), token.x.end());
      for (int k = 0; k < load_.top_k; ++k) {
        const int32_t expert = token.expert[static_cast<size_t>(k)];
        if (expert < 0) {
          slots.push_back(-1);
          continue;
        }
        const auto replicas = table_.SlotsOf(ExpertId(expert));
        slots.push_back(
            replicas[Hash(static_cast<uint64_t>(t), static_cast<uint64_t>(k)) % replicas.size()]
                .value);
      }
    }
    exchange_.Dispatch({.rows = rows_.Keep(round % load_.num_buffers, rows),
                        .row_stride = load_.hidden * 4,
                        .num_tokens = end - begin,
                        .slots = slots});
  }

  std::span<const Exchange::SlotRows> Receive(int64_t round, Exchange::Part part) {
    Call("Receive", round);
    return exchange_.Receive(part);
  }

  // Some rounds are received in parts, the rank's own rows first or last; ranks differ.
  bool IsReceivedInParts(int64_t round, bool is_own_first) const {
    if (load_.num_ranks == 1) return false;
    const uint64_t drawn =
        Hash(load_.seed, 99, static_cast<uint64_t>(rank_), static_cast<uint64_t>(round)) % 4;
    return drawn == (is_own_first ? 0 : 1);
  }
  void DoOwnRows(int64_t round) {
    Compute(Receive(round, Exchange::Part::kOwn));
    Return(round);
  }
  // But for what was done before.
  std::span<const Exchange::SlotRows> ReceiveRest(int64_t round) {
    const bool has_parts = IsReceivedInParts(round, true) || IsReceivedInParts(round, false);
    return Receive(round, has_parts ? Exchange::Part::kOthers : Exchange::Part::kAll);
  }
  void FinishRound(int64_t round, std::span<const Exchange::SlotRows> received) {
    Compute(received);
    Return(round);
    if (IsReceivedInParts(round, false)) DoOwnRows(round);
    Reduce(round);
  }

  void Compute(std::span<const Exchange::SlotRows> received) {
    const int first_slot = rank_ * placement_.slots_per_rank();
    for (size_t s = 0; s < received.size(); ++s)
      rows_.Apply(placement_.slot_expert[static_cast<size_t>(first_slot) + s].value, received[s]);
  }

  void Return(int64_t round) {
    Call("Return", round);
    exchange_.Return();
  }

  void Reduce(int64_t round) {
    Call("WaitReturns", round);
    const auto rows = exchange_.WaitReturns();
    std::vector<float> weights;
    for (int64_t t = ChunkBegin(round); t < ChunkBegin(round + 1); ++t) {
      const std::vector<float>& of_token = tokens_[static_cast<size_t>(t)].weight;
      weights.insert(weights.end(), of_token.begin(), of_token.end());
    }
    const int64_t place = layer_ * load_.num_tokens + first_token_ + ChunkBegin(round);
    rows_.Combine(rows, weights, values_.data() + place * load_.hidden);
  }

  void RunInTurn() {
    for (bool more = true; more; ++round_) {
      Publish(round_);
      more = WaitCounts(round_);
      Dispatch(round_);
      if (IsReceivedInParts(round_, true)) DoOwnRows(round_);
      FinishRound(round_, ReceiveRest(round_));
    }
  }

  void RunPipelined() {
    Publish(round_);
    bool more = WaitCounts(round_);
    Dispatch(round_);
    if (more) Publish(round_ + 1);
    while (true) {
      if (IsReceivedInParts(round_, true)) DoOwnRows(round_);
      const auto received = ReceiveRest(round_);
      bool more_after = false;
      if (more) {
        more_after = WaitCounts(round_ + 1);
        Dispatch(round_ + 1);
        if (more_after) Publish(round_ + 2);
      }
      FinishRound(round_, received);
      ++round_;
      if (!more) return;
      more = more_after;
    }
  }

  // As many rounds as the rank with most tokens needs.
  int64_t NumRounds() const {
    int64_t most = 1;
    for (int r = 0; r < load_.num_ranks; ++r) {
      const parallel::Shard shard = TokensOf(load_, r, layer_);
      most = std::max(most, (shard.end - shard.begin + load_.max_rows - 1) / load_.max_rows);
    }
    return most;
  }

  bool Serve() {
    Call("TakeRows", round_);
    const auto taken = exchange_.TakeRows(load_.is_pipelined ? Exchange::Order::kOwnLast
                                                             : Exchange::Order::kTogether);
    if (!taken) return false;
    const int64_t round = taken->round;
    if (load_.is_pipelined && taken->sources.size() == 1 && taken->sources[0] == rank_) {
      ComputeOwnAfterOthers(taken->rows);
    } else {
      Compute(taken->rows);
    }
    Return(round);
    return true;
  }

  void ComputeOwnAfterOthers(std::span<const Exchange::SlotRows> taken) {
    std::vector<std::vector<const std::byte*>> x_rows;
    std::vector<std::vector<std::byte*>> y_rows;
    for (const Exchange::SlotRows& slot : taken) {
      x_rows.emplace_back(slot.x_rows.begin(), slot.x_rows.end());
      y_rows.emplace_back(slot.y_rows.begin(), slot.y_rows.end());
    }
    std::vector<Exchange::SlotRows> own;
    for (size_t s = 0; s < x_rows.size(); ++s) own.push_back({x_rows[s], y_rows[s]});
    exchange_.PutOwnAside();
    while (Serve()) {
    }
    exchange_.TakeUpOwn();
    Compute(own);
  }

  void RunFree() {
    const int64_t end = round_ + NumRounds();
    int64_t next = round_;  // to be reduced
    const auto reduce_next = [&] {
      while (!exchange_.HasReturns())
        if (!Serve()) exchange_.WaitForWork();
      Reduce(next++);
    };
    for (; round_ < end; ++round_) {
      if (round_ - next == load_.num_buffers) reduce_next();
      Publish(round_);
      Dispatch(round_);
    }
    while (next < end) reduce_next();
  }

  const Load& load_;
  Exchange& exchange_;
  int rank_;
  std::vector<float>& values_;
  const Probe& probe_;
  LoadRows& rows_;
  eplb::Placement placement_;
  eplb::RoutingTable table_;
  std::vector<Token> tokens_;
  int64_t first_token_ = 0;
  int layer_ = 0;
  int64_t round_ = 0;
  int64_t first_round_ = 0;
};

}  // namespace

std::vector<Load> LoadsOfAnyBuffersAndChunkSize(int num_ranks) {
  std::vector<Load> loads;
  for (const int num_buffers : {1, 2, 3}) {
    for (const int64_t max_rows : {5, 64}) {
      Load& load = loads.emplace_back();
      load.num_ranks = num_ranks;
      load.num_buffers = num_buffers;
      load.max_rows = max_rows;
      load.num_slots = 27;
      load.is_random_placement = num_buffers == 2;
      load.is_skewed = true;
    }
  }
  for (const bool is_own_last : {false, true}) {
    Load& load = loads.emplace_back(loads.front());
    load.is_free = true;
    load.is_pipelined = is_own_last;
    load.num_buffers = is_own_last ? 3 : 1;
  }
  return loads;
}

Load LargeMaskedLoad(int num_ranks, int num_layers) {
  Load load;
  load.num_ranks = num_ranks;
  load.hidden = 2051;
  load.max_rows = 400;
  load.num_tokens = 900;
  load.num_layers = num_layers;
  load.routing = Routing::kMasked;
  return load;
}

Load RandomLoad(std::mt19937_64& random, int max_ranks) {
  const auto pick = [&](int low, int high) {
    return static_cast<int>(random() % static_cast<uint64_t>(high - low + 1)) + low;
  };
  Load load;
  load.num_ranks = pick(1, max_ranks);
  load.num_buffers = pick(1, 4);
  load.max_rows = pick(1, 30);
  load.num_experts = pick(8, 40);
  load.num_slots = load.num_experts + pick(0, load.num_experts);
  load.is_random_placement = pick(0, 1) == 1;
  load.top_k = pick(1, 8);
  // Steps over the experts must not meet: 8 to 40 experts, at most 8 steps of 3.
  load.num_experts = std::max(load.num_experts, load.top_k * 3);
  load.num_slots = std::max(load.num_slots, load.num_experts);
  load.hidden = pick(1, 70);
  load.num_tokens = pick(0, 120);
  load.num_layers = pick(1, 4);
  load.routing = static_cast<Routing>(pick(0, 3));
  load.share = static_cast<Share>(pick(0, 2));
  load.is_skewed = pick(0, 1) == 1;
  load.is_pipelined = pick(0, 1) == 1;
  load.first_epoch = static_cast<uint32_t>(random());
  load.seed = random();
  load.is_free = random() % 2 == 0;
  return load;
}

std::string Load::Name() const {
  return fmt::format(
      "ranks {} buffers {} rows {} experts {} slots {} random {} top_k {} tokens {} routing {} "
      "share {} skewed {} pipelined {} free {} threads {} epoch {} seed {}",
      num_ranks, num_buffers, max_rows, num_experts, num_slots, is_random_placement, top_k,
      num_tokens, static_cast<int>(routing), static_cast<int>(share), is_skewed, is_pipelined,
      is_free, threads_per_rank, first_epoch, seed);
}

ExchangeShape ShapeOf(const Load& load) {
  return {.num_ranks = load.num_ranks,
          .max_rows = load.max_rows,
          .top_k = load.top_k,
          .row_bytes = load.hidden * 4,
          .return_row_bytes = load.hidden * 4,
          .num_experts = load.num_experts,
          .num_slots = PlacementOf(load).num_slots(),
          .num_buffers = load.num_buffers,
          .first_epoch = load.first_epoch,
          .is_free = load.is_free};
}

eplb::Placement PlacementOf(const Load& load) {
  const int wanted = std::max(load.num_slots, load.num_experts);
  const int num_slots = (wanted + load.num_ranks - 1) / load.num_ranks * load.num_ranks;
  return load.is_random_placement
             ? eplb::RandomPlacement(load.num_experts, num_slots, load.num_ranks, load.seed)
             : eplb::ContiguousPlacement(load.num_experts, num_slots, load.num_ranks);
}

std::vector<float> Oracle(const Load& load) {
  const auto hidden = static_cast<size_t>(load.hidden);
  std::vector<float> values(static_cast<size_t>(load.num_layers * load.num_tokens) * hidden);
  for (int layer = 0; layer < load.num_layers; ++layer)
    for (int64_t t = 0; t < NumTokens(load); ++t) {
      const Token token = MakeToken(load, layer, t);
      float* out = values.data() + static_cast<size_t>(layer * load.num_tokens + t) * hidden;
      for (size_t k = 0; k < token.expert.size(); ++k) {
        if (token.expert[k] < 0) continue;
        for (size_t i = 0; i < hidden; ++i)
          out[i] += token.weight[k] * ExpertValue(token.expert[k], token.x.data(), load.hidden,
                                                  static_cast<int64_t>(i));
      }
    }
  return values;
}

bool IsOracle(const Load& load, const LoadResult& result) {
  const std::vector<float> expected = Oracle(load);
  const auto bits = [](const std::vector<float>& values) {
    return std::as_bytes(std::span(values));
  };
  return std::ranges::equal(bits(result.values), bits(expected));
}

void RunRank(const Load& load, Exchange& exchange, comm::Communicator& group,
             std::vector<float>& values, const Probe& probe, LoadRows* rows) {
  HostLoadRows on_host(load.num_buffers, load.hidden, load.top_k);
  LayerRun run(load, exchange, group.rank(), values, probe, rows != nullptr ? *rows : on_host);
  for (int layer = 0; layer < load.num_layers; ++layer) {
    group.SetWhere({.iteration = 1, .layer = layer});
    run.Run(layer);
  }
  run.Finish();
}

LoadResult RunOverExchange(const Load& load, const Probe& probe,
                           std::chrono::milliseconds deadline) {
  const int total_threads = load.num_ranks * load.threads_per_rank;
  comm::LocalGroup group(load.num_ranks, {.total_threads = total_threads, .deadline = deadline});
  LocalFabrics fabrics(load.num_ranks, SegmentBytes(ShapeOf(load)), total_threads);
  LoadResult result;
  result.values.resize(static_cast<size_t>(load.num_layers * load.num_tokens * load.hidden));
  result.num_rounds.resize(static_cast<size_t>(load.num_ranks));
  result.outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
    const int rank = communicator.rank();
    ThreadPool pool("pool", load.threads_per_rank, total_threads);
    Exchange exchange(ShapeOf(load), fabrics.rank(rank), communicator, &pool);
    RunRank(load, exchange, communicator, result.values, probe);
    result.num_rounds[static_cast<size_t>(rank)] = exchange.traffic().num_rounds;
  });
  return result;
}

}  // namespace wideload::exchange
