#include "tests/ranks/load_rows.h"

#include <cstring>

namespace wideload::exchange {

const std::byte* HostLoadRows::Keep(int64_t buffer, std::span<const float> rows) {
  std::vector<float>& kept = kept_[static_cast<size_t>(buffer)];
  kept.assign(rows.begin(), rows.end());
  return reinterpret_cast<const std::byte*>(kept.data());
}

void HostLoadRows::Apply(int32_t expert, const Exchange::SlotRows& rows) {
  std::vector<float> y(static_cast<size_t>(hidden_));
  for (size_t r = 0; r < rows.x_rows.size(); ++r) {
    const auto* const x = reinterpret_cast<const float*>(rows.x_rows[r]);
    for (int64_t i = 0; i < hidden_; ++i)
      y[static_cast<size_t>(i)] = ExpertValue(expert, x, hidden_, i);
    std::memcpy(rows.y_rows[r], y.data(), y.size() * sizeof(float));
  }
}

void HostLoadRows::Combine(std::span<const std::byte* const> rows, std::span<const float> weights,
                           float* out) {
  for (size_t entry = 0; entry < rows.size(); ++entry) {
    if (rows[entry] == nullptr) continue;
    float* const sums = out + static_cast<int64_t>(entry) / top_k_ * hidden_;
    for (int64_t i = 0; i < hidden_; ++i) {
      float value = 0;
      std::memcpy(&value, rows[entry] + i * static_cast<int64_t>(sizeof(float)), sizeof(float));
      sums[i] += weights[entry] * value;
    }
  }
}

}  // namespace wideload::exchange
