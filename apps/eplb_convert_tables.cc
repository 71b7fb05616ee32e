#include "eplb_convert_tables.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "tensor/safetensors.h"

namespace wideload::apps {

formats::Recording RecordingOf(const statistics::ExpertStatistics& recorded) {
  formats::Recording recording{.ep_size = recorded.ep_size, .top_k = recorded.experts_per_token};
  for (int64_t i = 0; i < recorded.num_iterations; ++i)
    for (size_t l = 0; l < recorded.num_layers(); ++l) {
      const auto row = recorded.Row(i, l, 0);
      formats::AddBatch(recording.loads, recorded.layers[l], {row.begin(), row.end()});
    }
  return recording;
}

formats::NumberArray ArrayOf(const statistics::LoadTable& table, bool keep_steps) {
  const bool has_steps = keep_steps && !table.batches.empty();
  const size_t steps = has_steps ? table.batches.begin()->second.size() : 1;
  formats::CheckFilledTable(steps, table.layers, table.num_experts);
  const auto layers = static_cast<size_t>(table.layers.rbegin()->first) + 1;
  const auto experts = static_cast<size_t>(table.num_experts);
  formats::NumberArray array{.values = std::vector<double>(steps * layers * experts, 0)};
  for (size_t i = 0; i < steps; ++i)
    for (const auto& [layer, total] : table.layers) {
      const std::vector<double>& loads = has_steps ? table.batches.at(layer)[i] : total;
      const size_t row = i * layers + static_cast<size_t>(layer);
      std::copy(loads.begin(), loads.end(),
                array.values.begin() + static_cast<int64_t>(row * experts));
    }
  array.shape = {static_cast<int64_t>(layers), table.num_experts};
  if (has_steps) array.shape.insert(array.shape.begin(), static_cast<int64_t>(steps));
  return array;
}

void WriteTensor(const std::string& path, const formats::NumberArray& array,
                 const statistics::LoadTable& table) {
  const Shape shape(array.shape);
  TensorView view(DType::kF64, shape, array.values.data());
  std::vector<int64_t> counts;
  if (!formats::HoldsShares(table)) {
    counts.assign(array.values.begin(), array.values.end());
    view = TensorView(DType::kI64, shape, counts.data());
  }
  WriteSafetensors(path, std::vector<std::pair<std::string, TensorView>>{{"load", view}});
}

}  // namespace wideload::apps
