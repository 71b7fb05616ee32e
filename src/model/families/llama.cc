// Llama 2 and 3, dense. Source: the published config and modeling files.
#include "model/family.h"

namespace wideload::model {

ModelSpec ReadLlama(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config) {
  ModelSpec spec = PlainSpec(config);
  const bool attention_bias = reader.BoolOr("attention_bias", false);
  const bool mlp_bias = reader.BoolOr("mlp_bias", false);
  ForEachGqa(spec,
             [&](GqaSpec& attention) { attention.qkv_bias = attention.o_bias = attention_bias; });
  for (LayerSpec& layer : spec.layers) layer.dense_bias = mlp_bias;
  return spec;
}

}  // namespace wideload::model
