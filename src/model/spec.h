// A model apart from its weights: the layers, their sizes and variants, and how the checkpoint
// names its tensors. A family makes one from a config.json; everything else follows it. A plain
// value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "checkpoint/model_config.h"
#include "compute/ops.h"
#include "kv/paged_cache.h"
#include "moe/layout.h"
#include "parallel/mapping.h"

namespace wideload::model {

// RMS norms of queries and keys: before the rotation each head by one weight of head_dim, or the
// whole projection by one weight of all its heads; or after it, each head, without weight.
enum class QkNorm { kNone, kPerHead, kWholeRow, kAfterRope };

// Queries are multiplied with 1 + scale ln(1 + floor((position + 1) / floor)); none with floor 0.
struct AttentionTemperature {
  double scale = 0;
  double floor = 0;
};

// Grouped-query attention of one layer.
struct GqaSpec {
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  bool qkv_bias = false;
  bool o_bias = false;
  bool has_sinks = false;
  QkNorm qk_norm = QkNorm::kNone;
  bool is_rotary = true;
  compute::RopePairs rope_pairs = compute::RopePairs::kHalfSplit;
  AttentionTemperature temperature;
  int64_t window = 0;  // keys that a position sees; 0: all before it
  int64_t chunk = 0;   // a position sees keys of its own chunk of this many; 0: all
  float scale = 1;     // of the scores
};

// Multi-head latent attention of one layer (DeepSeek-V2, arXiv 2405.04434, 2.1): the cache holds
// one latent row and one rotated key a token, which all heads share.
struct MlaSpec {
  int64_t heads = 0;
  int64_t q_lora_rank = 0;  // 0: queries are projected in one step
  int64_t kv_lora_rank = 0;
  int64_t nope_dim = 0;  // of a query and key head: not rotated,
  int64_t rope_dim = 0;  // rotated
  int64_t value_dim = 0;
  float norm_eps = 1e-6F;  // of the two latent norms
  float scale = 1;         // of the scores

  int64_t query_dim() const { return nope_dim + rope_dim; }
  int64_t latent_dim() const { return kv_lora_rank + rope_dim; }  // what the cache holds
};

// Routed experts of a layer, besides what MoeShape says of all.
struct ExpertsSpec {
  int64_t width = 0;
  bool has_bias = false;             // of gate, up and down
  bool has_router_bias = false;      // added to the router's logits
  bool has_correction_bias = false;  // for the choice only
  int64_t shared_width = 0;          // of the expert that every token passes through; 0: none
  bool has_shared_gate = false;      // its output is multiplied with sigmoid(gate x)
};

// How a checkpoint stores the routed experts of a layer.
enum class ExpertStorage {
  // Three tensors for each, or all in gate_up_proj [E, 2 width, hidden], gate before up, and
  // down_proj [E, hidden, width].
  kOutputMajor,
  // All in gate_up_proj [E, hidden, 2 width], gate before up, and down_proj [E, width, hidden].
  kInputMajor,
  // The same with rows of gate and up in turns; or MXFP4, output-major.
  kInputMajorInterleaved,
};

// One layer: norm, attention, norm, and experts or a dense MLP.
struct LayerSpec {
  std::variant<GqaSpec, MlaSpec> attention;
  int32_t moe_index = -1;   // position in MoeShape::layers, or -1: dense
  int64_t dense_width = 0;  // of a dense layer's MLP
  bool dense_bias = false;
};

// Below a layer's prefix, "model.layers.3.".
struct TensorNames {
  std::string prefix;  // before every name
  std::string dense_mlp = "mlp.";
  std::string router = "mlp.gate";
  std::string correction_bias = "mlp.gate.e_score_correction_bias";
  std::string experts = "mlp.experts.";
  std::string shared = "mlp.shared_experts.";
  std::string shared_gate = "mlp.shared_expert_gate";
  std::string gate = "gate_proj";
  std::string up = "up_proj";
  std::string down = "down_proj";
  // Beginnings of the names of tensors that are not for the language model.
  std::vector<std::string> others;
};

// A whole model.
struct ModelSpec {
  int64_t vocab_size = 0;
  int64_t hidden = 0;
  float norm_eps = 0;
  bool tied_embeddings = false;
  checkpoint::RopeConfig rope;
  int64_t rotary_dim = 0;     // elements of each head that are rotated
  int64_t max_positions = 0;  // the context
  std::vector<LayerSpec> layers;
  int64_t num_extra_layers = 0;  // prediction layers in the checkpoint, not loaded
  moe::MoeShape moe;
  ExpertsSpec experts;
  ExpertStorage expert_storage = ExpertStorage::kOutputMajor;
  TensorNames names;

  int64_t num_layers() const { return static_cast<int64_t>(layers.size()); }
};

// What most families are: pre-norm layers of grouped-query attention with rotary positions, routed
// experts in config.moe_layers whose softmax weights are taken as they are, no biases.
ModelSpec PlainSpec(const checkpoint::ModelConfig& config);

// A rank of a tensor-parallel group, whose ranks share the attention of their requests.
struct TensorRank {
  int32_t rank = 0;
  int32_t size = 1;
};

// The heads that a rank computes. Each rank has some of every kind: with fewer KV heads than ranks
// several ranks have the same one, and share the query heads that look at it.
struct HeadShard {
  parallel::Shard q;
  parallel::Shard kv;
};
HeadShard HeadsOf(const GqaSpec& spec, const TensorRank& rank);
parallel::Shard HeadsOf(const MlaSpec& spec, const TensorRank& rank);

// Errors: kInvalid when a layer has fewer heads or columns than the group has ranks.
void CheckTensorParallel(const ModelSpec& spec, int32_t size);

// Errors: kInvalid when the model has no experts, or a matrix of one has fewer columns than parts.
void CheckExpertParts(const ModelSpec& spec, int32_t parts);

// What a rank's KV cache holds of each layer; that of rank 0 is no smaller than any other's. With
// `kept` nothing of other layers than these, but for their windows.
std::vector<kv::LayerCacheShape> CacheShapes(const ModelSpec& spec, const TensorRank& rank = {},
                                             std::optional<parallel::Shard> kept = {});

// Of all layers, keys and values.
int64_t KvBytesPerToken(const ModelSpec& spec, DType dtype);

// Scratch that a forward pass takes for each token of a rank's batch, at most, with experts in so
// many parts.
int64_t ScratchBytesPerToken(const ModelSpec& spec, int32_t expert_parts = 1);

// Elements that a row of one layer has when ranks that share a context show it to each other:
// query, key and value; and what one rank's part of the context gives for it.
struct ContextRow {
  int64_t asked = 0;
  int64_t answered = 0;
};
ContextRow ContextRowOf(const LayerSpec& layer);

// What ranks that share a context keep for a while of each token of a batch of them all: what its
// queries ask, and what each rank's part of the context answers.
int64_t ContextBytesPerToken(const ModelSpec& spec);

// "model.layers.3." with the family's prefix.
std::string LayerPrefix(const TensorNames& names, int64_t layer);

}  // namespace wideload::model
