#include "eplb_halves.h"

namespace wideload::apps {

Halves SplitInHalves(const eplb::BatchLoads& batches, Order order) {
  const eplb::BatchLoads loaded = batches.WithLoad();
  Halves halves{{loaded.num_experts}, {loaded.num_experts}};
  for (int32_t i = 0; i < loaded.size(); ++i) {
    const bool records = order == Order::kInTime ? i < loaded.size() / 2 : i % 2 == 1;
    (records ? halves.recorded : halves.measured).Add(loaded.At(i));
  }
  return halves;
}

std::vector<int32_t> SampledLayers(const RecordedLoads& recorded, int32_t max_layers) {
  std::vector<int32_t> loaded;
  for (const auto& [layer, loads] : recorded.layers)
    if (eplb::HasLoad(loads.Sum())) loaded.push_back(layer);
  const auto all = static_cast<int32_t>(loaded.size());
  if (max_layers == 0 || all <= max_layers) return loaded;
  std::vector<int32_t> sampled;
  for (int32_t i = 0; i < max_layers; ++i)
    sampled.push_back(loaded[static_cast<size_t>(
        max_layers == 1 ? all / 2 : static_cast<int64_t>(i) * (all - 1) / (max_layers - 1))]);
  return sampled;
}

}  // namespace wideload::apps
