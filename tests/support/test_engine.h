// A model and an engine for tests: load a folder, run requests to their end, look at logits and
// tokens.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/model_config.h"
#include "model/model.h"
#include "runtime/engine.h"

namespace wideload::testing_support {

// Where kernels on a device run in this program; none unless it says so before models are loaded.
struct DeviceUnderTest {
  device::Device* device = nullptr;
  const compute::cuda::Kernels* kernels = nullptr;
};
DeviceUnderTest& TheDevice();

struct TestModel {
  device::Memory weights;  // of kernels on a device
  checkpoint::ModelConfig config;
  std::unique_ptr<model::Model> model;
  int32_t tensor_ranks = 1;  // of a group
  int32_t expert_parts = 1;
};
// `config_file` may name another spelling of config.json in the folder.
TestModel LoadTestModel(const std::string& folder, compute::KernelSet kernels,
                        const std::string& config_file = "config.json");
// For groups of so many ranks, which are threads, and experts in so many parts.
TestModel LoadTestModel(const std::string& folder, compute::KernelSet kernels, int32_t tensor_ranks,
                        int32_t expert_parts = 1);

// What came out of one request.
struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // [positions, vocab] with prompt_logits
  runtime::FinishReason finish = runtime::FinishReason::kNone;
  std::string error;
  bool operator==(const Outcome&) const = default;
};

// Options that run `config` on one rank without preemption.
runtime::EngineOptions TestOptions(const checkpoint::ModelConfig& config,
                                   compute::KernelSet kernels);

// Submits the requests in the order given and steps until all have ended; outcome i belongs to
// request i.
std::vector<Outcome> RunRequests(const model::Model& model, const runtime::EngineOptions& options,
                                 const std::vector<runtime::Request>& requests);
std::vector<Outcome> RunRequests(runtime::Engine& engine,
                                 const std::vector<runtime::Request>& requests);

}  // namespace wideload::testing_support
