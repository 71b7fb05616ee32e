// The models of all ranks of a tensor-parallel group in one process, as one: what they divide lies
// in one block of memory beside what they share. Constant after load, so thread-safe.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "model/loader.h"
#include "model/model.h"

namespace wideload::model {

// LoadTransformer for ranks that are threads, `num_ranks` to a group: a rank computes with the part
// of its place in RankContext::tensor. options.mode is kRead; arena and shards are set here.
// Memory: `block`, of what measuring the same finds; the model's own when that is empty. Errors: as
// LoadTransformer.
std::unique_ptr<Model> LoadForThreads(const ModelSpec& spec, checkpoint::Checkpoint& checkpoint,
                                      const LoadOptions& options, int32_t num_ranks,
                                      std::span<std::byte> block = {});

// TensorShards of ranks that are all here; own is the first.
TensorShards AllShards(int32_t num_ranks);
// All parts of each expert.
ExpertParts AllParts(int32_t num_parts);

}  // namespace wideload::model
