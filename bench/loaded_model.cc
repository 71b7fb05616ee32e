#include "loaded_model.h"

#include "base/cpu_info.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "model/registry.h"
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

}  // namespace wideload::bench
