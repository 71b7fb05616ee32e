#include "support/test_engine.h"

#include "base/error.h"
#include "base/file.h"
#include "kv/paged_cache.h"
#include "model/registry.h"
#include "model/sharded_model.h"
#include "model/transformer.h"

namespace wideload::testing_support {

namespace {

TestModel Load(const std::string& folder, compute::KernelSet kernels,
               const std::string& config_file, int32_t tensor_ranks = 1, int32_t expert_parts = 1) {
  TestModel loaded{.tensor_ranks = tensor_ranks, .expert_parts = expert_parts};
  const std::string path = folder + "/" + config_file;
  model::ModelReading reading = model::ParseModel(ReadFile(path), path);
  if (!reading.unsupported.empty())
    Throw(ErrorKind::kUnsupported, "{}", fmt::join(reading.unsupported, "; "));
  loaded.config = reading.config;
  checkpoint::Checkpoint weights(folder);
  ThreadPool pool("load", 2);
  model::LoadOptions options{
      .kernels = kernels, .pool = &pool, .expert_parts = model::AllParts(expert_parts)};
  std::unique_ptr<device::Stream> upload;
  if (IsOnDevice(kernels)) {
    options.mode = model::LoadMode::kMeasure;
    model::WeightLoader loader(weights, options);
    model::LoadTransformer(reading.spec, loader);
    options.mode = model::LoadMode::kRead;
    loaded.weights = TheDevice().device->Allocate(loader.stored_bytes());
    upload = TheDevice().device->MakeStream();
    options.upload = upload.get();
  }
  loaded.model =
      model::LoadForThreads(reading.spec, weights, options, tensor_ranks, loaded.weights.bytes());
  return loaded;
}

}  // namespace

DeviceUnderTest& TheDevice() {
  static DeviceUnderTest device;
  return device;
}

TestModel LoadTestModel(const std::string& folder, compute::KernelSet kernels,
                        const std::string& config_file) {
  return Load(folder, kernels, config_file);
}

TestModel LoadTestModel(const std::string& folder, compute::KernelSet kernels, int32_t tensor_ranks,
                        int32_t expert_parts) {
  return Load(folder, kernels, "config.json", tensor_ranks, expert_parts);
}

runtime::EngineOptions TestOptions(const checkpoint::ModelConfig& config,
                                   compute::KernelSet kernels) {
  runtime::EngineOptions options;
  options.kernels = kernels;
  if (IsOnDevice(kernels)) {
    options.device = TheDevice().device;
    options.device_kernels = TheDevice().kernels;
  }
  options.max_seq_len = config.max_position_embeddings;
  options.max_num_tokens = 512;
  options.num_kv_blocks = 2 * options.max_batch_size * kv::BlocksFor(256);
  return options;
}

std::vector<Outcome> RunRequests(const model::Model& model, const runtime::EngineOptions& options,
                                 const std::vector<runtime::Request>& requests) {
  runtime::Engine engine(model, options);
  return RunRequests(engine, requests);
}

std::vector<Outcome> RunRequests(runtime::Engine& engine,
                                 const std::vector<runtime::Request>& requests) {
  std::vector<Outcome> outcomes(requests.size());
  std::map<runtime::RequestId, size_t> index;
  engine.SetLogitsSink([&](runtime::RequestId id, int64_t position, std::span<const float> row) {
    std::vector<float>& logits = outcomes[index.at(id)].logits;
    const size_t at = static_cast<size_t>(position) * row.size();
    if (logits.size() < at + row.size()) logits.resize(at + row.size());
    std::copy(row.begin(), row.end(), logits.begin() + static_cast<int64_t>(at));
  });
  for (size_t i = 0; i < requests.size(); ++i) index[engine.Submit(requests[i])] = i;
  while (!engine.idle()) {
    for (const runtime::Event& event : engine.Step()) {
      Outcome& outcome = outcomes[index.at(event.id)];
      if (event.token >= 0) outcome.tokens.push_back(event.token);
      outcome.finish = event.finish;
      outcome.error = event.error;
    }
  }
  return outcomes;
}

}  // namespace wideload::testing_support
