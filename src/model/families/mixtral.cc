// Mixtral: the weights of the chosen experts are the softmax over them alone. Source: "Mixtral of
// Experts" (arXiv 2401.04088) and the published modeling file.
#include "model/family.h"

namespace wideload::model {

ModelSpec ReadMixtral(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config) {
  RequireExperts(reader, config);
  ModelSpec spec = PlainSpec(config);
  ReadWindows(reader, spec);
  spec.moe.router.normalize = true;
  spec.names.router = "block_sparse_moe.gate";
  spec.names.experts = "block_sparse_moe.experts.";
  spec.names.gate = "w1";
  spec.names.up = "w3";
  spec.names.down = "w2";
  return spec;
}

}  // namespace wideload::model
