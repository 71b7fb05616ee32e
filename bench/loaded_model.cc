#include "loaded_model.h"

#include "base/cpu_info.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "model/registry.h"
#include "model/sharded_model.h"
#include "model/transformer.h"

namespace wideload::bench {

LoadedModel Load(const std::string& folder, compute::KernelSet kernels) {
  LoadedModel loaded;
  loaded.kernels = kernels;
  const model::ModelReading reading = model::ReadModel(folder);
  loaded.config = reading.config;
  checkpoint::Checkpoint weights(folder);
  ThreadPool pool("load", NumAllowedCpus());
  model::WeightLoader loader(weights, {.kernels = loaded.kernels, .pool = &pool});
  loaded.model = model::LoadTransformer(reading.spec, loader);
  return loaded;
}

LoadedModel LoadForRanks(const std::string& folder, int32_t tensor_ranks, int32_t expert_parts) {
  LoadedModel loaded;
  const model::ModelReading reading = model::ReadModel(folder);
  loaded.config = reading.config;
  checkpoint::Checkpoint weights(folder);
  ThreadPool pool("load", NumAllowedCpus());
  loaded.model = model::LoadForThreads(
      reading.spec, weights,
      {.kernels = loaded.kernels, .pool = &pool, .expert_parts = model::AllParts(expert_parts)},
      tensor_ranks);
  return loaded;
}

std::vector<int32_t> RandomPrompt(const LoadedModel& loaded, int64_t num_tokens,
                                  std::mt19937& random) {
  const auto vocab_size = static_cast<uint32_t>(loaded.model->spec().vocab_size);
  std::vector<int32_t> prompt(static_cast<size_t>(num_tokens));
  for (int32_t& id : prompt) id = static_cast<int32_t>(random() % vocab_size);
  return prompt;
}

}  // namespace wideload::bench
