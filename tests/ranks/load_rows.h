// Where the rows of a made-up layer (exchange_load.h) lie, and who computes on them: the processor,
// or a device (exchange_on_device.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "exchange/exchange.h"

namespace wideload::exchange {

// Element i of what an expert makes of a row. The same operations wherever they are done.
inline float ExpertValue(int32_t expert, const float* x, int64_t hidden, int64_t i) {
  const float scale = 1.0F + static_cast<float>(expert) / 7.0F;
  return x[i] * scale + x[(i + expert) % hidden] / static_cast<float>(expert + 3);
}

// Of one rank, used by its thread.
class LoadRows {
 public:
  virtual ~LoadRows() = default;

  // The rows of a chunk, kept until the same buffer gets others.
  virtual const std::byte* Keep(int64_t buffer, std::span<const float> rows) = 0;
  // Each y row = what the expert makes of its x row.
  virtual void Apply(int32_t expert, const Exchange::SlotRows& rows) = 0;
  // out [tokens][hidden] += the rows of a token [K], as far as there are, each by its weight.
  virtual void Combine(std::span<const std::byte* const> rows, std::span<const float> weights,
                       float* out) = 0;
  // Between calls, now and then.
  virtual void Pause() {}
  // What Combine was called for is there.
  virtual void Finish() {}
};

class HostLoadRows final : public LoadRows {
 public:
  HostLoadRows(int num_buffers, int64_t hidden, int top_k)
      : hidden_(hidden), top_k_(top_k), kept_(static_cast<size_t>(num_buffers)) {}

  const std::byte* Keep(int64_t buffer, std::span<const float> rows) override;
  void Apply(int32_t expert, const Exchange::SlotRows& rows) override;
  void Combine(std::span<const std::byte* const> rows, std::span<const float> weights,
               float* out) override;

 private:
  int64_t hidden_;
  int top_k_;
  std::vector<std::vector<float>> kept_;  // [B]
};

}  // namespace wideload::exchange
