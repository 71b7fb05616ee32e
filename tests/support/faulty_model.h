// A model that does in the layers of one iteration what a test of faults asks for, and all else as
// another model. Thread-safe when the functions given are.
#pragma once

#include <functional>
#include <utility>

#include "model/model.h"

namespace wideload::testing_support {

class FaultyModel : public model::Model {
 public:
  // What each rank that comes to the layers of `iteration` calls there; may throw or not return.
  struct Fault {
    int64_t iteration = 0;
    std::function<void(const model::Batch&)> before = [](const model::Batch&) {};
    std::function<void(const model::Batch&)> after = [](const model::Batch&) {};
  };
  // `model` outlives this one.
  FaultyModel(const model::Model& model, Fault fault) : model_(model), fault_(std::move(fault)) {}

  const model::ModelSpec& spec() const override { return model_.spec(); }
  int64_t weight_bytes() const override { return model_.weight_bytes(); }
  std::span<const compute::ExpertWeights> Experts(int32_t moe_index, int32_t part) const override {
    return model_.Experts(moe_index, part);
  }
  TensorView Embed(const model::RankContext& rank, const model::Batch& batch) const override {
    return model_.Embed(rank, batch);
  }
  TensorView Head(const model::RankContext& rank, const model::Batch& batch,
                  const TensorView& h) const override {
    return model_.Head(rank, batch, h);
  }
  void Layers(const model::RankContext& rank, const model::Batch& batch, int64_t first,
              int64_t last, const TensorView& h) const override {
    const bool is_here = batch.iteration == fault_.iteration;
    if (is_here) fault_.before(batch);
    model_.Layers(rank, batch, first, last, h);
    if (is_here) fault_.after(batch);
  }

 private:
  const model::Model& model_;
  Fault fault_;
};

}  // namespace wideload::testing_support
