#include "runtime/cached_prompt.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace wideload::runtime {
namespace {

// The KV heads of a layer that a rank of a group has. Latent attention has one, on every rank.
parallel::Shard KvHeadsOf(const model::LayerSpec& layer, const model::TensorRank& rank) {
  const auto* const gqa = std::get_if<model::GqaSpec>(&layer.attention);
  return gqa != nullptr ? model::HeadsOf(*gqa, rank).kv : parallel::Shard{.begin = 0, .end = 1};
}

model::TensorRank RankOf(const CachedSequence& sequence, size_t rank) {
  return {.rank = static_cast<int32_t>(rank), .size = static_cast<int32_t>(sequence.caches.size())};
}

// Some blocks of one class.
struct BlockRange {
  int64_t block_class = 0;
  int64_t begin = 0;
  int64_t end = 0;
};

std::byte* HeadAt(const TensorView& part, int64_t block, int64_t head) {
  return static_cast<std::byte*>(part.raw_mutable()) + block * part.row_bytes() +
         head * part.dim(2) * part.dim(3) * DTypeBytes(part.dtype());
}

// From one rank of the same number as there are in the other group: the same bytes.
int64_t CopyBlocks(const CachedSequence& from, const CachedPart& to, const BlockRange& range) {
  const auto c = static_cast<size_t>(range.block_class);
  const kv::PagedCache& cache = *from.caches[static_cast<size_t>(to.rank.rank)];
  int64_t num_bytes = 0;
  for (auto i = static_cast<size_t>(range.begin); i < static_cast<size_t>(range.end); ++i) {
    const auto source = cache.Block(range.block_class, from.tables[c].blocks[i]);
    const auto target = to.cache.Block(range.block_class, to.tables[c].blocks[i]);
    WIDELOAD_CHECK(source.size() == target.size(), "a block of {} bytes for one of {}",
                   source.size(), target.size());
    std::memcpy(target.data(), source.data(), source.size());
    num_bytes += static_cast<int64_t>(source.size());
  }
  return num_bytes;
}

// One layer's heads of one rank, each from the first rank that has it.
int64_t CopyHeads(const CachedSequence& from, const CachedPart& to, int64_t layer,
                  const BlockRange& range) {
  const model::LayerSpec& spec = from.spec->layers[static_cast<size_t>(layer)];
  const parallel::Shard own = KvHeadsOf(spec, to.rank);
  const auto c = static_cast<size_t>(range.block_class);
  int64_t num_bytes = 0;
  for (int64_t head = own.begin; head < own.end; ++head) {
    size_t source = 0;
    while (KvHeadsOf(spec, RankOf(from, source)).end <= head) ++source;
    const int64_t first = KvHeadsOf(spec, RankOf(from, source)).begin;
    const auto copy = [&](const TensorView& there, const TensorView& here) {
      if (here.empty()) return;
      const int64_t head_bytes = here.dim(2) * here.dim(3) * DTypeBytes(here.dtype());
      for (auto i = static_cast<size_t>(range.begin); i < static_cast<size_t>(range.end); ++i)
        std::memcpy(HeadAt(here, to.tables[c].blocks[i], head - own.begin),
                    HeadAt(there, from.tables[c].blocks[i], head - first),
                    static_cast<size_t>(head_bytes));
      num_bytes += (range.end - range.begin) * head_bytes;
    };
    copy(from.caches[source]->Keys(layer), to.cache.Keys(layer));
    copy(from.caches[source]->Values(layer), to.cache.Values(layer));
  }
  return num_bytes;
}

}  // namespace

int64_t CopyPart(const CachedSequence& from, const CachedPart& to, int64_t first_block) {
  WIDELOAD_CHECK(from.tables.size() == to.tables.size(), "{} block classes for {}",
                 from.tables.size(), to.tables.size());
  int64_t num_bytes = 0;
  for (size_t c = 0; c < from.tables.size(); ++c) {
    const BlockRange range = {.block_class = static_cast<int64_t>(c),
                              .begin = std::max(first_block, from.tables[c].num_given_back),
                              .end = std::ssize(from.tables[c].blocks)};
    WIDELOAD_CHECK(
        std::ssize(to.tables[c].blocks) >= range.end && to.tables[c].num_given_back <= range.begin,
        "blocks {} to {} for {} of which {} are given back", range.begin, range.end,
        to.tables[c].blocks.size(), to.tables[c].num_given_back);
    if (std::ssize(from.caches) == to.rank.size) {
      num_bytes += CopyBlocks(from, to, range);
      continue;
    }
    for (int64_t layer = 0; layer < from.spec->num_layers(); ++layer)
      if (to.cache.block_class(layer) == range.block_class)
        num_bytes += CopyHeads(from, to, layer, range);
  }
  return num_bytes;
}

int64_t CopySequence(const CachedSequence& from, const CachedSequence& to, int64_t first_block) {
  int64_t num_bytes = 0;
  for (size_t rank = 0; rank < to.caches.size(); ++rank)
    num_bytes +=
        CopyPart(from, {.rank = RankOf(to, rank), .cache = *to.caches[rank], .tables = to.tables},
                 first_block);
  return num_bytes;
}

std::string HandOverRefusal(const EngineOptions& from, const EngineOptions& to) {
  for (const EngineOptions* options : {&from, &to}) {
    if (options->layout.pp > 1)
      return fmt::format(
          "pipeline_parallel_size is {}: stages do not hand prompts over to another engine",
          options->layout.pp);
    if (options->layout.cp > 1)
      return fmt::format(
          "context_parallel_size is {}: ranks that share contexts do not hand prompts over to "
          "another engine",
          options->layout.cp);
  }
  if (from.kernels != to.kernels)
    return fmt::format(
        "kernels are {} and {}: engines that hand prompts over to each other need the same",
        KernelSetName(from.kernels), KernelSetName(to.kernels));
  return "";
}

}  // namespace wideload::runtime
