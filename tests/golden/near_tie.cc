#include "golden/near_tie.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "checkpoint/testing.h"
#include "checkpoint/weight_sums.h"
#include "model/registry.h"
#include "support/random_model.h"
#include "support/test_engine.h"

namespace wideload::testing_support {
namespace {

using checkpoint::EditedModel;

bool Holds(const std::string& name, std::string_view part) {
  return name.find(part) != std::string::npos;
}

// The tensor's elements in fp32; none when it is not there.
std::vector<float> Floats(const EditedModel& model, const std::string& name) {
  std::vector<float> values;
  const auto found = model.tensors.find(name);
  if (found == model.tensors.end()) return values;
  const EditedModel::Tensor& tensor = found->second;
  for (int64_t i = 0; i < tensor.shape.num_elements(); ++i)
    values.push_back(LoadFloat(tensor.dtype, tensor.bytes.data(), i));
  return values;
}

// Nothing is added to the residual stream after the attention of `layer`, and what the head sees of
// it is what that layer's router sees: logits are the router's.
void PutRouterInPlaceOfHead(const model::ModelSpec& spec, int64_t layer, EditedModel& model) {
  for (auto& [name, tensor] : model.tensors) {
    const int64_t of = checkpoint::LayerOf(name);
    const bool is_down = Holds(name, "down_proj") || Holds(name, ".w2.");
    const bool is_behind = (of >= layer && is_down) || (of > layer && Holds(name, ".o_proj"));
    // The code 0 of int4 is -8: there scales of 0 are enough.
    const bool is_kept = name.ends_with("_shape") || name.ends_with("_packed");
    if (is_behind && !is_kept) std::ranges::fill(tensor.bytes, std::byte{0});
  }
  const std::string prefix = LayerPrefix(spec.names, layer);
  EditedModel::Tensor head = model.tensors.at(prefix + spec.names.router + ".weight");
  head.shape = {spec.vocab_size, spec.hidden};
  head.bytes.resize(static_cast<size_t>(head.shape.num_elements() * DTypeBytes(head.dtype)));
  model.tensors[spec.names.prefix + "lm_head.weight"] = std::move(head);
  model.tensors[spec.names.prefix + "model.norm.weight"] =
      model.tensors.at(prefix + "post_attention_layernorm.weight");
  const bool is_nested = model.config.contains("text_config");
  (is_nested ? model.config["text_config"] : model.config)["tie_word_embeddings"] = false;
}

// Of the experts, at the position.
std::vector<float> RouterLogits(const model::ModelSpec& spec, const RouterChoice& choice,
                                EditedModel& model, const std::vector<int32_t>& prompt) {
  PutRouterInPlaceOfHead(spec, choice.layer, model);
  const std::string folder = TemporaryFolder("router");
  model.Write(folder);
  constexpr compute::KernelSet kExact = compute::KernelSet::kReference;
  const TestModel exact = LoadTestModel(folder, kExact);
  const std::vector<int32_t> seen(prompt.begin(), prompt.begin() + choice.position + 1);
  const Outcome outcome =
      RunRequests(*exact.model, TestOptions(exact.config, kExact),
                  {{.prompt = seen, .max_tokens = 0, .prompt_logits = true}})[0];
  EXPECT_EQ(outcome.error, "");
  const auto first = outcome.logits.begin() + choice.position * spec.vocab_size;
  std::vector<float> logits(first, first + spec.moe.num_experts);
  const std::vector<float> bias =
      Floats(model, LayerPrefix(spec.names, choice.layer) + spec.names.router + ".bias");
  for (size_t e = 0; e < bias.size(); ++e) logits[e] += bias[e];
  return logits;
}

std::vector<int32_t> Choose(const compute::RouterOptions& options, std::vector<float> logits) {
  std::vector<int32_t> ids(static_cast<size_t>(options.top_k));
  std::vector<float> weights(ids.size());
  const auto experts = static_cast<int64_t>(logits.size());
  ThreadPool pool("route", 1);
  const compute::Exec exec{.kernels = compute::KernelSet::kReference, .pool = &pool};
  Route(exec, TensorView(DType::kF32, {1, experts}, logits.data()), options,
        TensorView(DType::kI32, {1, options.top_k}, ids.data()),
        TensorView(DType::kF32, {1, options.top_k}, weights.data()));
  std::ranges::sort(ids);
  return ids;
}

}  // namespace

float DistanceTo(const RouterChoice& choice, const std::string& folder,
                 const std::vector<int32_t>& prompt) {
  const model::ModelSpec spec = model::ReadModel(folder).spec;
  EditedModel model(folder);
  const std::vector<float> bias =
      Floats(model, LayerPrefix(spec.names, choice.layer) + spec.names.correction_bias);
  compute::RouterOptions options = spec.moe.router;
  options.correction_bias = bias;
  const std::vector<float> logits = RouterLogits(spec, choice, model, prompt);
  std::vector<int32_t> wanted = choice.experts;
  std::ranges::sort(wanted);
  const auto is_chosen = [&](float distance) {
    std::vector<float> moved = logits;
    for (size_t e = 0; e < moved.size(); ++e)
      moved[e] +=
          std::ranges::binary_search(wanted, static_cast<int32_t>(e)) ? distance : -distance;
    return Choose(options, moved) == wanted;
  };
  float least = 0, most = 1;
  if (!is_chosen(most)) return most;
  for (int step = 0; step < 20; ++step) {
    const float middle = (least + most) / 2;
    (is_chosen(middle) ? most : least) = middle;
  }
  return most;
}

}  // namespace wideload::testing_support
