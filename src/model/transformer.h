// The model that a ModelSpec describes, with its weights: embedding, pre-norm layers, head.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/loader.h"
#include "model/model.h"

namespace wideload::model {

// The model of the loader's tensor_rank(). Errors: as WeightLoader; when it measures, all of
// loader.faults() in one.
std::unique_ptr<Model> LoadTransformer(const ModelSpec& spec, WeightLoader& loader);

// What to say of tensors that the model did not ask for: one line each for those of prediction
// layers, of other modalities, and for the rest.
std::vector<std::string> DescribeUnused(const ModelSpec& spec,
                                        std::span<const std::string_view> unused);

}  // namespace wideload::model
