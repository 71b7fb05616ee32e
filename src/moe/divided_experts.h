// Experts that ranks divide by columns: each rank of a group receives the same rows, computes its
// output columns of gate and up and, once it has been shown those of all, its columns of down. No
// sum is split, so the bits are those of whole experts. One per rank, used by its thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "compute/ops.h"
#include "moe/layout.h"
#include "tensor/buffer.h"

namespace wideload::moe {

class DividedExperts {
 public:
  // group: the ranks that hold the parts, in their order; it outlives this object.
  DividedExperts(const MoeShape& shape, const MoeLayout& layout, comm::Communicator& group);

  // The exchange's slots of all parts of the experts in `slots` [n]: [n * parts], valid until the
  // next call.
  std::span<const int32_t> SlotsOfParts(std::span<const int32_t> slots);
  // compute::ExpertMlp, for this rank's columns of y. Collective over the group, which has the same
  // rows in the same order. Memory: two buffers for the rows between the products, kept. Errors:
  // comm::PeerLost.
  void Compute(const compute::Exec& exec, std::span<const compute::ExpertGroup> groups,
               const compute::GatedActivation& activation, Workspace& workspace);
  // h += sum over k of weights * results, for returned [T * K * parts] as SlotsOfParts orders them,
  // weights [T, K] F32, h [T, H] F32.
  void Combine(const compute::Exec& exec, std::span<const std::byte* const> returned,
               const TensorView& weights, const TensorView& h);

 private:
  TensorView TakeGated(DType dtype, int64_t rows, int64_t columns);

  comm::Communicator& group_;
  int32_t num_slots_;
  std::vector<int64_t> hidden_ends_;            // [parts] columns of y
  std::vector<int64_t> inner_ends_;             // [parts] of the rows between the products
  std::vector<int32_t> slots_;                  // [C * K * parts]
  std::vector<const std::byte*> part_results_;  // [C * K] of one part
  // In turns: others may read what one of them shows until the next gathering has ended.
  std::array<Buffer, 2> gated_;
  size_t turn_ = 0;
};

}  // namespace wideload::moe
