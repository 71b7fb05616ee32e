#include "model/weight_store.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/error.h"
#include "tensor/buffer.h"

namespace wideload::model {

WeightStore::WeightStore(const WeightStorePlace& place, std::span<const int32_t> layers,
                         std::vector<std::vector<int64_t>> expert_bytes)
    : place_(place),
      layers_(layers.begin(), layers.end()),
      expert_bytes_(std::move(expert_bytes)),
      offsets_(layers.size()),
      parts_(layers.size() * static_cast<size_t>(place.num_local_ranks)) {
  WIDELOAD_CHECK(expert_bytes_.size() == layers_.size(), "experts of {} layers for {} layers",
                 expert_bytes_.size(), layers_.size());
  for (const auto& experts : expert_bytes_)
    num_experts_ = std::max(num_experts_, static_cast<int32_t>(experts.size()));
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    if (expert_bytes_[layer].empty()) continue;
    int64_t offset = 0;
    for (int32_t e = 0; e < num_experts_; ++e) {
      if (e == FirstOf(ReaderOf(e))) offset = 0;
      offsets_[layer].push_back(offset);
      offset += Arena::PieceBytes(expert_bytes_[layer][static_cast<size_t>(e)]);
    }
  }
}

int32_t WeightStore::FirstOf(int32_t local_rank) const {
  return static_cast<int32_t>(int64_t{local_rank} * num_experts_ / place_.num_local_ranks);
}

int32_t WeightStore::ReaderOf(int32_t expert) const {
  int32_t reader = 0;
  while (FirstOf(reader + 1) <= expert) ++reader;
  return reader;
}

SegmentName WeightStore::NameOf(size_t layer, int32_t local_rank) const {
  return {.job = place_.job,
          .folder = place_.folder,
          .file = fmt::format("{}_l{}_lr{}_all", place_.base, layers_[layer], local_rank)};
}

int64_t WeightStore::PartBytes(size_t layer, int32_t local_rank) const {
  const int32_t end = FirstOf(local_rank + 1);
  if (end == FirstOf(local_rank) || expert_bytes_[layer].empty()) return 0;
  const auto last = static_cast<size_t>(end) - 1;
  return offsets_[layer][last] + Arena::PieceBytes(expert_bytes_[layer][last]);
}

SharedMemory& WeightStore::Part(size_t layer, int32_t local_rank) {
  return parts_[layer * static_cast<size_t>(place_.num_local_ranks) +
                static_cast<size_t>(local_rank)];
}

SharedMemory WeightStore::CreatePart(size_t layer, int64_t num_bytes) const {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kPoll{5};
  const SegmentName name = NameOf(layer, place_.local_rank);
  const auto end = Clock::now() + place_.patience;
  while (true) {
    try {
      return SharedMemory::Create(name, num_bytes);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kResource || !SharedMemory::Exists(name)) throw;
      if (Clock::now() >= end)
        Throw(error.kind(),
              "{}; --weight-store or TRTLLM_EPLB_SHM_NAME gives this run's another name",
              error.what());
    }
    std::this_thread::sleep_for(kPoll);
  }
}

void WeightStore::Create() {
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const int64_t num_bytes = PartBytes(layer, place_.local_rank);
    if (num_bytes == 0) continue;  // more ranks than experts
    Part(layer, place_.local_rank) = CreatePart(layer, num_bytes);
  }
}

void WeightStore::Attach() {
  for (size_t layer = 0; layer < layers_.size(); ++layer)
    for (int32_t r = 0; r < place_.num_local_ranks; ++r) {
      const int64_t num_bytes = PartBytes(layer, r);
      if (r == place_.local_rank || num_bytes == 0) continue;
      SharedMemory& part = Part(layer, r);
      part = SharedMemory::Attach(NameOf(layer, r));
      if (part.size() != num_bytes)
        Throw(ErrorKind::kCorrupt, "the shared experts {} have {} bytes; this rank counts {}",
              NameOf(layer, r).file, part.size(), num_bytes);
      part.CloseFile();
    }
}

void WeightStore::Unlink() {
  for (SharedMemory& part : parts_) {
    part.Unlink();
    part.CloseFile();
  }
}

std::span<std::byte> WeightStore::BytesOf(int32_t moe_index, int32_t expert) const {
  const auto layer = static_cast<size_t>(moe_index);
  const auto e = static_cast<size_t>(expert);
  const SharedMemory& part = parts_[layer * static_cast<size_t>(place_.num_local_ranks) +
                                    static_cast<size_t>(ReaderOf(expert))];
  return part.bytes().subspan(static_cast<size_t>(offsets_[layer][e]),
                              static_cast<size_t>(expert_bytes_[layer][e]));
}

std::vector<std::span<std::byte>> WeightStore::Parts() const {
  std::vector<std::span<std::byte>> parts;
  for (const SharedMemory& part : parts_) parts.push_back(part.bytes());
  return parts;
}

int64_t WeightStore::num_bytes() const {
  int64_t sum = 0;
  for (size_t layer = 0; layer < layers_.size(); ++layer)
    for (int32_t r = 0; r < place_.num_local_ranks; ++r) sum += PartBytes(layer, r);
  return sum;
}

}  // namespace wideload::model
