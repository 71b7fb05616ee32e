// What a Hugging Face folder holds, added up for a person: sizes, parts, and what stands in the way
// of running it. Plain values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
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

struct Inspection {
  std::string architecture;
  std::optional<ModelConfig> config;  // absent when an unsupported architecture lacks fields
  std::vector<int64_t> eos_ids;       // generation_config.json's, else config.json's
  int num_files = 0;
  uint64_t total_bytes = 0;
  uint64_t parameters = 0;
  uint64_t active_parameters = 0;  // read per token: top_k of the experts, the head, no embedding
  std::vector<PartSum> parts;      // in the order of the model, empty ones left out
  std::map<std::string, uint64_t> bytes_of_dtype;
  std::vector<ShapeGroup> shapes;        // sorted by pattern
  std::vector<std::string> unsupported;  // why it cannot be run; empty when it can

  // Keys and values of one token in all layers, bf16; absent when `unsupported` says that attention
  // may work otherwise.
  std::optional<uint64_t> KvBytesPerToken() const;
};

// Errors: everything ParseModelConfig and Checkpoint refuse, but for the fields of an architecture
// that is not in `supported_architectures`: those become a line of `unsupported`.
Inspection InspectFolder(const std::string& folder,
                         std::span<const std::string_view> supported_architectures);

// The part of the model a tensor of this name belongs to, one of the names in PartSum.
// `num_layers`: layers from there on are extra prediction layers; 0: unknown.
std::string_view PartOf(std::string_view tensor_name, int64_t num_layers);

// The number after "layers." in the name, or -1.
int64_t LayerOf(std::string_view tensor_name);

}  // namespace wideload::checkpoint
