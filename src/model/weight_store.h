// All experts of a host, once, in shared memory that the ranks of the host fill together: of n
// ranks, rank r reads the experts [r E / n, (r + 1) E / n) of every layer into parts of its own and
// maps those of the others. Parts lose their names before anything is read, so that whoever is
// killed then leaves nothing. Used by one thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/shared_memory.h"

namespace wideload::model {

// Parts are the files `BASE_lLAYER_lrRANK_all` of `folder`, as TensorRT-LLM names them: LAYER is
// the model's layer, RANK the one of the host that reads the part.
struct WeightStorePlace {
  std::string base = "moe_shared";
  std::string job;  // the same for all segments of one run
  std::string folder = "/dev/shm";
  int32_t local_rank = 0;
  int32_t num_local_ranks = 1;
  // How long the first rank waits for a base name that another job uses: others have it for
  // milliseconds.
  std::chrono::milliseconds patience{10'000};
};

class WeightStore {
 public:
  // expert_bytes [MoE layers][E], the same on all ranks of the host; layers [MoE layers]: of the
  // model. Nothing is made yet.
  WeightStore(const WeightStorePlace& place, std::span<const int32_t> layers,
              std::vector<std::vector<int64_t>> expert_bytes);

  // Steps, each ended by all ranks of the host before the next one begins. Create is two: the
  // first rank's, with which its job has the base name, and that of the others.
  // Makes this rank's parts. Errors: kResource when there is not the space or when another living
  // job keeps the base name; kInvalid for a base that is no file name.
  void Create();
  // Maps the parts of the others. Errors: kNotFound, kCorrupt: another base or job there.
  void Attach();
  // Takes the names of this rank's parts away.
  void Unlink();

  // Whether this rank reads the expert.
  bool IsOwn(int32_t expert) const { return ReaderOf(expert) == place_.local_rank; }
  // The expert's bytes, 64-byte aligned; the same memory on all ranks.
  std::span<std::byte> BytesOf(int32_t moe_index, int32_t expert) const;
  // Of the shared memory.
  int64_t num_bytes() const;
  // The memory of all parts, after Attach.
  std::vector<std::span<std::byte>> Parts() const;

 private:
  int32_t ReaderOf(int32_t expert) const;
  int32_t FirstOf(int32_t local_rank) const;
  SegmentName NameOf(size_t layer, int32_t local_rank) const;
  int64_t PartBytes(size_t layer, int32_t local_rank) const;
  SharedMemory& Part(size_t layer, int32_t local_rank);
  SharedMemory CreatePart(size_t layer, int64_t num_bytes) const;

  WeightStorePlace place_;
  std::vector<int32_t> layers_;
  int32_t num_experts_ = 0;
  std::vector<std::vector<int64_t>> expert_bytes_;  // [MoE layers][E]
  std::vector<std::vector<int64_t>> offsets_;       // [MoE layers][E] in their part
  std::vector<SharedMemory> parts_;                 // [MoE layers * local ranks]
};

}  // namespace wideload::model
