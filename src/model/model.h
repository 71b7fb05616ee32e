// A model: weights that ranks share, and one forward pass over a rank's batch, in three parts that
// stages of a pipeline can divide among themselves. Of what the ranks of a tensor-parallel group
// divide, it has one rank's part, or those of all (sharded_model.h). Constant after load, so
// thread-safe.
#pragma once

#include <cstdint>
#include <span>

#include "comm/communicator.h"
#include "compute/ops.h"
#include "kv/paged_cache.h"
#include "model/spec.h"
#include "moe/moe_runner.h"

namespace wideload::model {

// One rank's part of an iteration; T tokens of any number of sequences, possibly none. Ranks that
// share a context have the same sequences and divide their rows: one rank's come after the other's,
// and a sequence may be there in several parts.
struct Batch {
  int64_t iteration = 0;
  std::span<const int32_t> ids;        // [T]
  std::span<const int32_t> positions;  // [T]
  // The sequences that cover all rows of these ranks, with their blocks of each class of the rank's
  // cache: [block classes][S].
  std::span<const compute::KvSequence> sequences;
  int64_t num_block_classes = 1;
  std::span<const int32_t> logits_rows;  // of all these rows, those whose logits are wanted
  std::span<const int64_t> row_ends;     // of the ranks that share a context; empty: it is alone

  // Of all these ranks.
  int64_t num_group_rows() const {
    return row_ends.empty() ? static_cast<int64_t>(ids.size()) : row_ends.back();
  }
  // Of one of them.
  int64_t first_row(int rank) const {
    return rank == 0 ? 0 : row_ends[static_cast<size_t>(rank) - 1];
  }

  // With the blocks of one class.
  std::span<const compute::KvSequence> SequencesOf(int64_t block_class) const {
    const size_t count = sequences.size() / static_cast<size_t>(num_block_classes);
    return sequences.subspan(static_cast<size_t>(block_class) * count, count);
  }
};

// What the rank owns and a forward pass uses.
struct RankContext {
  compute::Exec exec;
  Workspace* workspace = nullptr;
  const kv::PagedCache* cache = nullptr;
  moe::MoeRunner* moe = nullptr;
  // The ranks that have the same batch and share its attention; null: this rank alone.
  comm::Communicator* tensor = nullptr;
  // The ranks that share the context of the batch's sequences; null: this rank alone.
  comm::Communicator* context = nullptr;

  // Between two ops: whether others wait for this rank's experts (moe::MoeRunner::Poll).
  void Poll() const {
    if (moe != nullptr) moe->Poll(exec, *workspace);
  }
  // compute::MatMul, with a Poll after every few rows where there is somebody to wait for it:
  // others do not wait for all rows of a long batch.
  void MatMul(const TensorView& x, const compute::PackedMatrix& w, const TensorView& y,
              bool accumulate = false) const;
};

class Model {
 public:
  virtual ~Model() = default;
  // What the model was made from.
  virtual const ModelSpec& spec() const = 0;
  // Bytes of packed weights.
  virtual int64_t weight_bytes() const = 0;
  // A part, of whole experts the only one 0, of the experts of MoE layer `moe_index` [num_experts];
  // without bytes those that were not loaded.
  virtual std::span<const compute::ExpertWeights> Experts(int32_t moe_index,
                                                          int32_t part) const = 0;

  // The embedding of the batch's tokens, [T, hidden] F32 in the workspace.
  virtual TensorView Embed(const RankContext& rank, const Batch& batch) const = 0;
  // Carries h [T, hidden] F32 through layers [first, last) in place; keys and values go to the
  // rank's cache. Collective: all ranks call it for the same iteration and layers, also with T = 0;
  // those of rank.tensor with the same batch, those of rank.context with their parts of it.
  virtual void Layers(const RankContext& rank, const Batch& batch, int64_t first, int64_t last,
                      const TensorView& h) const = 0;
  // Logits [logits_rows, vocab_size] F32 in the workspace, in the order of these rows, on the first
  // rank of rank.context; the others have none. Collective over rank.tensor and rank.context.
  virtual TensorView Head(const RankContext& rank, const Batch& batch,
                          const TensorView& h) const = 0;

  // All three.
  TensorView Forward(const RankContext& rank, const Batch& batch) const {
    const TensorView h = Embed(rank, batch);
    Layers(rank, batch, 0, spec().num_layers(), h);
    return Head(rank, batch, h);
  }
};

}  // namespace wideload::model
