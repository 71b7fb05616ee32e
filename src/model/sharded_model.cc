#include "model/sharded_model.h"

#include <numeric>
#include <utility>
#include <vector>

#include "base/error.h"
#include "model/transformer.h"

namespace wideload::model {
namespace {

class ShardedModel final : public Model {
 public:
  ShardedModel(Buffer block, std::vector<std::unique_ptr<Model>> shards)
      : block_(std::move(block)), shards_(std::move(shards)) {}

  const ModelSpec& spec() const override { return shards_[0]->spec(); }
  int64_t weight_bytes() const override { return shards_[0]->weight_bytes(); }
  std::span<const compute::ExpertWeights> Experts(int32_t moe_index, int32_t part) const override {
    return shards_[0]->Experts(moe_index, part);
  }
  TensorView Embed(const RankContext& rank, const Batch& batch) const override {
    return Of(rank).Embed(rank, batch);
  }
  void Layers(const RankContext& rank, const Batch& batch, int64_t first, int64_t last,
              const TensorView& h) const override {
    Of(rank).Layers(rank, batch, first, last, h);
  }
  TensorView Head(const RankContext& rank, const Batch& batch, const TensorView& h) const override {
    return Of(rank).Head(rank, batch, h);
  }

 private:
  const Model& Of(const RankContext& rank) const {
    WIDELOAD_CHECK(
        rank.tensor != nullptr && static_cast<size_t>(rank.tensor->size()) == shards_.size(),
        "a model in {} parts", shards_.size());
    return *shards_[static_cast<size_t>(rank.tensor->rank())];
  }

  Buffer block_;
  std::vector<std::unique_ptr<Model>> shards_;
};

}  // namespace

TensorShards AllShards(int32_t num_ranks) {
  TensorShards shards{.own = {.rank = 0, .size = num_ranks},
                      .kept = std::vector<int32_t>(static_cast<size_t>(num_ranks))};
  std::iota(shards.kept.begin(), shards.kept.end(), 0);
  return shards;
}

ExpertParts AllParts(int32_t num_parts) {
  ExpertParts parts{.size = num_parts,
                    .kept = std::vector<int32_t>(static_cast<size_t>(num_parts))};
  std::iota(parts.kept.begin(), parts.kept.end(), 0);
  return parts;
}

std::unique_ptr<Model> LoadForThreads(const ModelSpec& spec, checkpoint::Checkpoint& checkpoint,
                                      const LoadOptions& options, int32_t num_ranks,
                                      std::span<std::byte> block) {
  const auto load = [&](const LoadOptions& part) {
    WeightLoader loader(checkpoint, part);
    std::unique_ptr<Model> model = LoadTransformer(spec, loader);
    return std::make_pair(std::move(model), loader.stored_bytes());
  };
  if (num_ranks == 1 && block.empty()) return load(options).first;
  LoadOptions part = options;
  part.shards = AllShards(num_ranks);
  Buffer own;
  if (block.empty()) {
    part.mode = LoadMode::kMeasure;
    own = Buffer(load(part).second);
    block = {own.data(), static_cast<size_t>(own.num_bytes())};
  }
  std::vector<std::unique_ptr<Model>> shards;
  for (int32_t r = 0; r < num_ranks; ++r) {
    Arena arena(block);
    part.shards.own.rank = r;
    part.arena = &arena;
    part.mode = r == 0 ? LoadMode::kRead : LoadMode::kAttach;
    shards.push_back(load(part).first);
  }
  if (num_ranks == 1) return std::move(shards[0]);
  return std::make_unique<ShardedModel>(std::move(own), std::move(shards));
}

}  // namespace wideload::model
