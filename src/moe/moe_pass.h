// One call of MoeRunner::Forward, for the files of MoeRunner.
#pragma once

#include <algorithm>

#include "moe/moe_runner.h"

namespace wideload::moe {

struct MoeRunner::Pass {
  const compute::Exec& exec;
  Workspace& workspace;
  const MoeWeights& weights;
  int32_t moe_index;
  TensorView h;            // [T, H] F32
  TensorView rows;         // [T, H] compute dtype: what is sent
  TensorView ids;          // [T, K] I32
  TensorView top_weights;  // [T, K] F32
  int64_t chunk_tokens;

  // Tokens of a chunk: none once all have been sent.
  int64_t Begin(int64_t chunk) const { return std::min(chunk * chunk_tokens, rows.dim(0)); }
  int64_t Count(int64_t chunk) const { return Begin(chunk + 1) - Begin(chunk); }
  std::span<const int32_t> Ids(int64_t chunk) const {
    return {ids.row<int32_t>(Begin(chunk)), static_cast<size_t>(Count(chunk) * ids.dim(1))};
  }
};

}  // namespace wideload::moe
