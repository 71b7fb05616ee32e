// One call of MoeRunner::Forward, and the meter of its parts, for the files of MoeRunner.
#pragma once

#include <algorithm>

#include "base/thread_pool.h"
#include "moe/moe_runner.h"

namespace wideload::moe {

// Adds this thread's CPU time while it lives; none unless it is on.
class Meter {
 public:
  Meter(bool is_on, int64_t& sum_ns)
      : sum_ns_(is_on ? &sum_ns : nullptr), begin_(is_on ? ThreadCpuNs() : 0) {}
  ~Meter() {
    if (sum_ns_ != nullptr) *sum_ns_ += ThreadCpuNs() - begin_;
  }
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

 private:
  int64_t* sum_ns_;
  int64_t begin_;
};

struct MoeRunner::Pass {
  const compute::Exec& exec;
  Workspace& workspace;
  const MoeWeights& weights;
  int32_t moe_index;
  TensorView h;            // [T, H] F32
  TensorView rows;         // [T, H] compute dtype: what is sent
  TensorView ids;          // [T, K] I32
  TensorView host_ids;     // the same in memory of the host
  TensorView top_weights;  // [T, K] F32
  int64_t chunk_tokens;

  // Tokens of a chunk: none once all have been sent.
  int64_t Begin(int64_t chunk) const { return std::min(chunk * chunk_tokens, rows.dim(0)); }
  int64_t Count(int64_t chunk) const { return Begin(chunk + 1) - Begin(chunk); }
  std::span<const int32_t> Ids(int64_t chunk) const {
    return {host_ids.row<int32_t>(Begin(chunk)),
            static_cast<size_t>(Count(chunk) * host_ids.dim(1))};
  }
};

}  // namespace wideload::moe
