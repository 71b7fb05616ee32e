// What the weights of a Hugging Face folder are, added up for a person. Plain values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/model_config.h"

namespace wideload::checkpoint {

// The weights of one part of the model.
struct PartSum {
  std::string name;  // "experts"
  int64_t num_tensors = 0;
  uint64_t bytes = 0;
  uint64_t parameters = 0;  // packed 4-bit weights counted one by one, scales not at all
};

// Tensors that differ only in the numbers in their names.
struct ShapeGroup {
  std::string pattern;  // "model.layers.*.mlp.gate.weight"
  DType dtype = DType::kF32;
  Shape shape;
  int64_t count = 0;
};

struct WeightSums {
  int num_files = 0;
  uint64_t total_bytes = 0;
  uint64_t parameters = 0;
  uint64_t active_parameters = 0;  // read per token: top_k of the experts, the head, no embedding
  std::vector<PartSum> parts;      // in the order of the model, empty ones left out
  std::map<std::string, uint64_t> bytes_of_dtype;
  std::vector<ShapeGroup> shapes;  // sorted by pattern
};

// `config`: of the model, or null when it cannot be read.
WeightSums SumWeights(const Checkpoint& checkpoint, const ModelConfig* config);

// The part of the model a tensor of this name belongs to, one of the names in PartSum.
// `num_layers`: layers from there on are extra prediction layers; 0: unknown.
std::string_view PartOf(std::string_view tensor_name, int64_t num_layers);

// The name with "*" for each of its parts that is a number: "model.layers.*.mlp.gate.weight".
std::string NamePattern(std::string_view tensor_name);

// The number after "layers." in the name, or -1.
int64_t LayerOf(std::string_view tensor_name);

}  // namespace wideload::checkpoint
