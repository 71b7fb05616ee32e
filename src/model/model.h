// A model: weights that all ranks share, and one forward pass over a rank's batch. Constant after
// load, so thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "compute/ops.h"
#include "kv/paged_cache.h"
#include "moe/moe_runner.h"

namespace wideload::model {

// What the engine must know of a model.
struct ModelShape {
  int64_t vocab_size = 0;
  int64_t max_positions = 0;  // context
  int64_t num_layers = 0;
  std::vector<kv::LayerCacheShape> cache;  // [num_layers]
  int64_t weight_bytes = 0;                // packed
  moe::MoeShape moe;
};

// One rank's part of an iteration; T tokens of any number of sequences, possibly none.
struct Batch {
  int64_t iteration = 0;
  std::span<const int32_t> ids;                    // [T]
  std::span<const int32_t> positions;              // [T]
  std::span<const compute::KvSequence> sequences;  // cover rows 0 .. T-1
  std::span<const int32_t> logits_rows;            // rows whose logits are wanted, ascending
};

// What the rank owns and a forward pass uses.
struct RankContext {
  compute::Exec exec;
  Workspace* workspace = nullptr;
  const kv::PagedCache* cache = nullptr;
  moe::MoeRunner* moe = nullptr;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelShape& shape() const = 0;
  // Computes all layers, stores keys and values in the rank's cache. Returns logits [logits_rows,
  // vocab_size] F32 in the workspace. Collective: all ranks of the expert group call it for the
  // same iteration, also with T = 0.
  virtual TensorView Forward(const RankContext& rank, const Batch& batch) const = 0;
};

}  // namespace wideload::model
