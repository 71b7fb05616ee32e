// One rank: its threads, KV cache, scratch and sampler; carries out its part of a step plan. Owned
// by the engine, used by the rank's thread; outputs are read by the engine between iterations.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "exchange/device_rows.h"
#include "kv/paged_cache.h"
#include "model/model.h"
#include "runtime/engine_options.h"
#include "runtime/exchange_figures.h"
#include "runtime/placement_state.h"
#include "runtime/sampler.h"
#include "runtime/step.h"
#include "statistics/recorder.h"

namespace wideload::runtime {

// Sizes and threads of one rank.
struct RankOptions {
  int32_t rank = 0;
  parallel::Layout layout;
  int32_t threads = 1;
  compute::KernelSet kernels = compute::KernelSet::kReference;
  device::Device* device = nullptr;  // EngineOptions'
  const compute::cuda::Kernels* device_kernels = nullptr;
  int64_t max_num_tokens = 0;
  int64_t max_batch_size = 0;
  kv::CacheShape cache_shape;
  int32_t num_micro_batches = 1;               // each with blocks of its own
  parallel::Shard layers;                      // of its stage
  const PlacementState* placements = nullptr;  // of this process
  moe::SlotOptions slots;
  comm::Communicator* group = nullptr;          // of this rank, of all stages
  exchange::Fabric* fabric = nullptr;           // likewise; null when the model has no experts
  exchange::DeviceRows* device_rows = nullptr;  // of ranks on devices with experts
  trace::Trace* trace = nullptr;                // gets a track of this rank; may be null
  bool is_metered = false;                      // EngineOptions'
  std::span<std::byte> cache_memory;            // likewise, of this rank; of all micro-batches

  parallel::Coordinates place() const { return parallel::CoordinatesOf(layout, rank); }
  model::TensorRank tensor_rank() const { return {.rank = place().tp, .size = layout.tp}; }
};

// How the options want slots, but for what is a rank's own.
moe::SlotOptions SlotOptionsOf(const EngineOptions& options);

// The part of the engine's options that a rank has; `placements` must outlive the rank.
RankOptions MakeRankOptions(const model::Model& model, const EngineOptions& options,
                            const PlacementState& placements, comm::Communicator& group,
                            exchange::Fabric* fabric, exchange::DeviceRows* device_rows = nullptr);

// The KV cache of a rank of such an engine, of one micro-batch.
kv::CacheShape CacheShapeOf(const model::ModelSpec& spec, const EngineOptions& options, int rank);
// Of the caches of all its micro-batches.
int64_t CacheBytesOf(const model::ModelSpec& spec, const EngineOptions& options, int rank);

// What came out of one plan entry.
struct RankOutput {
  int32_t token = -1;  // sampled, or -1
  std::vector<TokenLogprob> logprobs;
  TensorView logits;  // [count or 1, vocab_size] F32: of every position with prompt_logits, else of
                      // the last if sampled
};

// Thread CPU time of a rank's own thread in the last iteration; zero unless it is metered.
struct RankTimes {
  std::span<const moe::LayerTimes> layers;  // [MoE layers]
  int64_t moving_ns = 0;                    // to take over a change of placements
  int64_t computing_ns = 0;                 // for all of its step, but for handing over
};

// What a rank made of its part of an iteration; valid until the next one.
struct RankResult {
  std::span<const RankOutput> outputs;     // one per entry, on the first rank of a group in the
                                           // last stage
  std::span<const int64_t> computed_rows;  // of each MoE layer; empty when there is none
  std::span<const int32_t> routed_counts;  // [MoE layers * experts] when asked for, else empty
  const RankExchange* exchange = nullptr;  // null when there is none
  // Rows of the exchange sent to each rank of its stage since the start [ranks]; empty when there
  // is none.
  std::span<const int64_t> sent_rows = {};
  RankTimes times = {};  // none of ranks that are other processes
  // When it had carried out its part; of another process, when that was heard.
  std::chrono::steady_clock::time_point ended = {};
};

class Rank {
 public:
  // `model` must outlive this object. Errors: kResource.
  Rank(const model::Model& model, const RankOptions& options);

  // First call on the rank's own thread: checks the floating-point mode of its threads, and meets
  // the other ranks. Collective. Errors: comm::PeerLost; kInvalid when ranks disagree about the
  // exchange.
  void Start();
  // Changes placements if it is time, carries the entries (possibly none) of this rank's group
  // through the layers of its stage, and samples in the last one, if it is the first of the group.
  // Then hands over to the next stage, and takes what the one before has computed. Fills outputs,
  // valid until the next call. Collective.
  // Errors: comm::PeerLost; kCorrupt when slots are verified and one does not hold its expert.
  void Run(const RankStep& step);

  // Told of this rank's routed counts, iteration by iteration; null: nothing is recorded.
  void SetRecorder(statistics::Recorder* recorder);
  // Whether the routed counts of each iteration are kept, [MoE layers * experts]; not at first. A
  // recorder asks for them by itself.
  void CountRouted(bool is_counting);
  std::span<const int32_t> routed_counts() const {
    return moe_ ? moe_->routed_counts() : std::span<const int32_t>();
  }
  // Of the last iteration; outputs may be more than it had entries.
  RankResult result() const;
  // Of one of its micro-batches.
  const kv::PagedCache& cache(int32_t micro_batch) const {
    return caches_[static_cast<size_t>(micro_batch)];
  }
  const model::Model& model() const { return model_; }
  const Workspace& workspace() const { return workspace_; }

 private:
  // What links this stage with its neighbours, and what came from the one before.
  struct Pipeline {
    // Of two ranks each, the sender first: between an even stage and the next, and an odd one.
    std::shared_ptr<comm::Communicator> links[2];
    // In turns: the rows in one are computed with while the next ones come into the other.
    Buffer rows[2];
    int current = 0;
    TensorView outgoing;       // [T, hidden], of this step
    int64_t num_outgoing = 0;  // T; 0 also when nothing was computed
  };
  bool is_first_stage() const { return options_.place().pp == 0; }
  bool is_last_stage() const { return options_.place().pp + 1 == options_.layout.pp; }
  void JoinPipeline();
  void MakeExchange();
  void Compute(const RankStep& step);
  void HandOver(int64_t incoming_tokens);
  TensorView TakeRows(const model::RankContext& context, const model::Batch& batch);
  void MovePlacements(const RankStep& step);
  void UsePlacements(moe::SharedPlacements table);
  void BuildBatch(std::span<const PlanEntry> entries);
  void CutEntries(std::span<const PlanEntry> entries, const ContextRows& rows);
  void ReadExchangeFigures();
  TensorView OnHost(const TensorView& logits);
  void SampleAll(const RankStep& step, const TensorView& logits);

  const model::Model& model_;
  RankOptions options_;
  ThreadPool pool_;
  std::unique_ptr<device::Stream> stream_;     // of this rank's work; null on processors
  device::Memory cache_memory_;                // of the device
  device::Memory logits_;                      // of the host, for the sampler
  Workspace workspace_;                        // of the device where there is one
  std::vector<kv::PagedCache> caches_;         // [micro-batches]
  trace::Track* track_ = nullptr;              // null: nothing is traced
  std::shared_ptr<comm::Communicator> stage_;  // of its stage, made by Start; null: there is one
  std::unique_ptr<exchange::Fabric> stage_fabric_;  // likewise
  Pipeline pipeline_;
  std::shared_ptr<comm::Communicator> tensor_;   // of its group, made by Start; null: it is alone
  std::shared_ptr<comm::Communicator> context_;  // of its context, likewise
  std::shared_ptr<comm::Communicator> expert_group_;  // of divided experts, likewise; else null
  std::unique_ptr<exchange::RowMover> mover_;         // of rows on a device
  std::optional<exchange::Exchange> exchange_;        // made by Start, on the rank's thread
  std::optional<moe::SlotStore> slots_;
  std::optional<moe::MoeRunner> moe_;
  moe::SharedPlacements announced_;  // of the iteration announced_for_ and on; null: none
  int64_t announced_for_ = 0;
  int64_t moving_ns_ = 0;
  int64_t computing_ns_ = 0;
  std::chrono::steady_clock::time_point ended_;
  statistics::Recorder* recorder_ = nullptr;
  bool counts_are_wanted_ = false;  // by others than the recorder
  std::vector<Sampler> samplers_;   // one per pool thread
  // Of an entry, its rows in one piece of ContextRows; first_row is their place.
  struct EntryPart {
    const PlanEntry* entry = nullptr;
    int64_t first_row = 0;
    int64_t num_tokens = 0;
    int64_t start_position = 0;
  };
  std::vector<EntryPart> parts_;
  std::vector<int32_t> ids_;
  std::vector<int32_t> positions_;
  std::vector<int64_t> row_ends_;  // of the ranks of its context
  std::vector<int32_t> logits_rows_;
  std::vector<int32_t> first_logit_;            // per entry: its first row in the logits, or -1
  std::vector<compute::KvSequence> sequences_;  // [block classes][parts_]
  std::vector<RankOutput> outputs_;
  RankExchange exchange_figures_;
};

}  // namespace wideload::runtime
