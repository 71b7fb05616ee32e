// The model families this program can run: one row each. To add one, see docs/howto/add-a-model.md.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "checkpoint/model_config.h"
#include "model/loader.h"
#include "model/model.h"

namespace wideload::model {

struct Family {
  std::string_view architecture;  // config.json's architectures[0]
  std::string_view name;          // for people
  // Bytes of packed weights, computed from the config alone.
  int64_t (*weight_bytes)(const checkpoint::ModelConfig&, compute::KernelSet);
  std::unique_ptr<Model> (*load)(const checkpoint::ModelConfig&, WeightLoader&,
                                 int64_t max_positions);
};

std::span<const Family> Families();

// Errors: kUnsupported naming the architecture and the ones there are.
const Family& FindFamily(std::string_view architecture);

}  // namespace wideload::model
