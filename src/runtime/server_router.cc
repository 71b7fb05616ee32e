#include "runtime/server_router.h"

#include <algorithm>

#include "base/error.h"
#include "kv/block_classes.h"

namespace wideload::runtime {
namespace {

constexpr uint64_t kHashStart = 0xcbf29ce484222325;
constexpr uint64_t kHashFactor = 0x100000001b3;

uint64_t HashOn(uint64_t hash, uint64_t value) {
  for (int byte = 0; byte < 8; ++byte) hash = (hash ^ (value >> (8 * byte) & 0xff)) * kHashFactor;
  return hash;
}

// Of each whole block of the prompt a hash of all tokens up to its end: FNV-1a.
std::vector<uint64_t> PrefixHashes(std::span<const int32_t> prompt, std::string_view salt) {
  uint64_t hash = kHashStart;
  for (const char c : salt) hash = HashOn(hash, static_cast<unsigned char>(c));
  std::vector<uint64_t> hashes;
  for (size_t i = 0; i < prompt.size(); ++i) {
    hash = HashOn(hash, static_cast<uint32_t>(prompt[i]));
    if ((i + 1) % static_cast<size_t>(kv::kBlockTokens) == 0) hashes.push_back(hash);
  }
  return hashes;
}

}  // namespace

ServerRouter::ServerRouter(ServerRouting routing, const Capacity& capacity, size_t num_servers)
    : routing_(routing), capacity_(capacity), known_(num_servers) {}

size_t ServerRouter::NumKnown(const Known& known, std::span<const uint64_t> blocks) const {
  const auto end =
      std::ranges::find_if(blocks, [&](uint64_t block) { return !known.blocks.contains(block); });
  return static_cast<size_t>(end - blocks.begin());
}

// From the last one on, so that the beginning of a prompt is forgotten after its end.
void ServerRouter::Note(Known& known, std::span<const uint64_t> blocks) const {
  for (size_t i = blocks.size(); i-- > 0;) {
    const auto [found, is_new] = known.blocks.try_emplace(blocks[i]);
    if (!is_new) known.order.erase(found->second);
    known.order.push_front(blocks[i]);
    found->second = known.order.begin();
  }
  while (std::ssize(known.order) > capacity_.num_blocks) {
    known.blocks.erase(known.order.back());
    known.order.pop_back();
  }
}

std::optional<size_t> ServerRouter::Choose(std::span<const int32_t> prompt, std::string_view salt,
                                           std::span<const Load> loads, int64_t* num_known_tokens) {
  WIDELOAD_CHECK(loads.size() == known_.size(), "loads of {} servers of {}", loads.size(),
                 known_.size());
  const bool is_aware = routing_ == ServerRouting::kCacheAware;
  const std::vector<uint64_t> blocks =
      is_aware ? PrefixHashes(prompt, salt) : std::vector<uint64_t>();
  const std::lock_guard lock(mutex_);
  const uint64_t turn = turn_++;
  std::optional<size_t> best;
  double best_score = 0;
  size_t best_known = 0;  // blocks
  for (size_t i = 0; i < loads.size(); ++i) {
    const size_t server = (turn + i) % loads.size();
    const Load& load = loads[server];
    if (!load.is_running) continue;
    double score = 0;
    if (routing_ != ServerRouting::kRoundRobin)
      score -= static_cast<double>(load.num_open) / static_cast<double>(capacity_.max_batch_size);
    const size_t num_known = blocks.empty() ? 0 : NumKnown(known_[server], blocks);
    if (num_known > 0) score += static_cast<double>(num_known) / static_cast<double>(blocks.size());
    if (best && score <= best_score) continue;
    best = server;
    best_score = score;
    best_known = num_known;
  }
  if (best && is_aware) Note(known_[*best], blocks);
  if (num_known_tokens != nullptr)
    *num_known_tokens = static_cast<int64_t>(best_known) * kv::kBlockTokens;
  return best;
}

}  // namespace wideload::runtime
