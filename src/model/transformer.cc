#include "model/transformer.h"

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "checkpoint/rope_table.h"
#include "checkpoint/weight_sums.h"
#include "model/column_cut.h"
#include "model/gated_mlp.h"
#include "model/gqa_attention.h"
#include "model/mla_attention.h"
#include "model/moe_block.h"
#include "trace/trace.h"

namespace wideload::model {
namespace {

using Attention = std::variant<GqaAttention, MlaAttention>;

struct Layer {
  Buffer input_norm;  // [H]
  Attention attention;
  Buffer post_norm;  // [H]
  std::variant<GatedMlp, MoeBlock> mlp;
};

Attention LoadAttention(const ModelSpec& model, const LayerSpec& spec, const std::string& prefix,
                        WeightLoader& loader) {
  const std::string attention = prefix + "self_attn.";
  if (const auto* mla = std::get_if<MlaSpec>(&spec.attention))
    return MlaAttention(*mla, model, attention, loader);
  return GqaAttention(std::get<GqaSpec>(spec.attention), model, attention, loader);
}

Layer LoadLayer(const ModelSpec& model, int64_t index, WeightLoader& loader) {
  const LayerSpec& spec = model.layers[static_cast<size_t>(index)];
  const std::string prefix = LayerPrefix(model.names, index);
  Layer layer{.input_norm = loader.Vector(prefix + "input_layernorm.weight", model.hidden),
              .attention = LoadAttention(model, spec, prefix, loader),
              .post_norm = loader.Vector(prefix + "post_attention_layernorm.weight", model.hidden),
              .mlp = {}};
  if (spec.moe_index >= 0) {
    layer.mlp = MoeBlock(model, spec.moe_index, prefix, loader);
  } else {
    layer.mlp = GatedMlp({.hidden = model.hidden,
                          .width = spec.dense_width,
                          .has_bias = spec.dense_bias,
                          .is_divided = true},
                         prefix + model.names.dense_mlp, loader);
  }
  return layer;
}

class Transformer final : public Model {
 public:
  Transformer(const ModelSpec& spec, WeightLoader& loader);

  const ModelSpec& spec() const override { return spec_; }
  int64_t weight_bytes() const override { return weight_bytes_; }
  std::span<const compute::ExpertWeights> Experts(int32_t moe_index, int32_t part) const override;
  TensorView Embed(const RankContext& rank, const Batch& batch) const override;
  void Layers(const RankContext& rank, const Batch& batch, int64_t first, int64_t last,
              const TensorView& h) const override;
  TensorView Head(const RankContext& rank, const Batch& batch, const TensorView& h) const override;

 private:
  void LoadHead(const std::string& embedding, WeightLoader& loader);
  TensorView WantedRows(const RankContext& rank, const Batch& batch, const TensorView& h) const;
  TensorView Norm(const RankContext& rank, const TensorView& h, const Buffer& weight,
                  DType dtype) const;
  void CopyRotaryRows(const Batch& batch, float* cos, float* sin) const;
  compute::RopeRows RotaryRows(const RankContext& rank, const Batch& batch) const;
  void RunAttention(const RankContext& rank, const Batch& batch, int64_t index,
                    const compute::RopeRows& rope, const TensorView& h) const;
  const Layer& LayerAt(int64_t index) const;
  void RunMlp(const RankContext& rank, const Layer& layer, const TensorView& h) const;
  void RunExperts(const RankContext& rank, const Layer& layer, const TensorView& h) const;

  ModelSpec spec_;
  checkpoint::RopeTable rope_;
  Buffer embedding_;  // [V, H] as stored
  DType embedding_dtype_ = DType::kF32;
  parallel::Shard kept_;  // layers
  std::vector<Layer> layers_;
  std::vector<compute::ExpertWeights> left_out_;  // in place of the experts of other layers
  Buffer final_norm_;                             // [H]
  ColumnCut head_cut_;                            // of V
  compute::PackedMatrix head_;                    // [own V, H]
  int64_t weight_bytes_ = 0;
};

Transformer::Transformer(const ModelSpec& spec, WeightLoader& loader)
    : spec_(spec),
      rope_(spec.rope, spec.rotary_dim, spec.max_positions),
      kept_(loader.LayersOf(spec.num_layers())),
      left_out_(static_cast<size_t>(spec.moe.num_experts)),
      head_cut_(spec.vocab_size, loader.tensor_rank()) {
  const std::string embedding = spec.names.prefix + "model.embed_tokens";
  if (kept_.begin == 0) {
    WeightLoader::Table table = loader.Raw(embedding + ".weight", {spec.vocab_size, spec.hidden});
    embedding_ = std::move(table.data);
    embedding_dtype_ = table.dtype;
  }
  if (kept_.end == spec.num_layers()) LoadHead(embedding, loader);
  for (int64_t layer = kept_.begin; layer < kept_.end; ++layer)
    layers_.push_back(LoadLayer(spec, layer, loader));
  weight_bytes_ = loader.packed_bytes();
  loader.faults().ThrowIfAny();
}

void Transformer::LoadHead(const std::string& embedding, WeightLoader& loader) {
  const ModelSpec& spec = spec_;
  const compute::WeightSource head =
      loader.Weight(spec.tied_embeddings ? embedding : spec.names.prefix + "lm_head",
                    spec.vocab_size, spec.hidden);
  head_ = loader.EachShard([&](int32_t rank) {
    const parallel::Shard own = head_cut_.Of(rank);
    return loader.Matrix(head.Rows(own.begin, own.size()));
  });
  final_norm_ = loader.Vector(spec.names.prefix + "model.norm.weight", spec.hidden);
}

const Layer& Transformer::LayerAt(int64_t index) const {
  WIDELOAD_CHECK(index >= kept_.begin && index < kept_.end, "layer {} of those from {} below {}",
                 index, kept_.begin, kept_.end);
  return layers_[static_cast<size_t>(index - kept_.begin)];
}

std::span<const compute::ExpertWeights> Transformer::Experts(int32_t moe_index,
                                                             int32_t part) const {
  const int64_t layer = spec_.moe.layers[static_cast<size_t>(moe_index)];
  if (layer < kept_.begin || layer >= kept_.end) return left_out_;
  return std::get<MoeBlock>(LayerAt(layer).mlp).Experts(part);
}

TensorView Transformer::Norm(const RankContext& rank, const TensorView& h, const Buffer& weight,
                             DType dtype) const {
  const TensorView x = rank.workspace->TakeTensor(dtype, h.shape());
  RmsNorm(rank.exec, h, weight.View(DType::kF32, {spec_.hidden}), spec_.norm_eps, x);
  return x;
}

TensorView Transformer::Embed(const RankContext& rank, const Batch& batch) const {
  const trace::Span span(trace::SpanKind::kEmbed);
  const TensorView h = rank.workspace->TakeTensor(
      DType::kF32, {static_cast<int64_t>(batch.ids.size()), spec_.hidden});
  compute::Embed(rank.exec, embedding_.View(embedding_dtype_, {spec_.vocab_size, spec_.hidden}),
                 batch.ids, h);
  return h;
}

// [T, pairs] each.
void Transformer::CopyRotaryRows(const Batch& batch, float* cos, float* sin) const {
  for (size_t t = 0; t < batch.positions.size(); ++t) {
    const int64_t at = static_cast<int64_t>(t) * rope_.num_pairs();
    rope_.CopyRow(batch.positions[t], cos + at, sin + at);
  }
}

compute::RopeRows Transformer::RotaryRows(const RankContext& rank, const Batch& batch) const {
  const Shape shape{static_cast<int64_t>(batch.positions.size()), rope_.num_pairs()};
  const compute::RopeRows rows{.cos = rank.workspace->TakeTensor(DType::kF32, shape),
                               .sin = rank.workspace->TakeTensor(DType::kF32, shape)};
  if (!IsOnDevice(rank.exec.kernels)) {
    CopyRotaryRows(batch, rows.cos.data<float>(), rows.sin.data<float>());
    return rows;
  }
  std::vector<float> host(static_cast<size_t>(2 * shape.num_elements()));
  CopyRotaryRows(batch, host.data(), host.data() + shape.num_elements());
  const float* const uploaded = rank.exec.stream->Upload(std::span<const float>(host));
  rank.exec.stream->Copy(rows.cos.raw_mutable(), uploaded, rows.cos.num_bytes());
  rank.exec.stream->Copy(rows.sin.raw_mutable(), uploaded + shape.num_elements(),
                         rows.sin.num_bytes());
  return rows;
}

// h += mlp(norm(h)).
void Transformer::RunMlp(const RankContext& rank, const Layer& layer, const TensorView& h) const {
  if (std::holds_alternative<MoeBlock>(layer.mlp)) return RunExperts(rank, layer, h);
  const trace::Span span(trace::SpanKind::kDenseMlp);
  const TensorView x = Norm(rank, h, layer.post_norm, rank.exec.precision().activations);
  std::get<GatedMlp>(layer.mlp).Forward(rank, spec_.moe.activation, x, h);
}

// Each rank of a tensor-parallel group sends its share of the tokens through the experts, so that
// none travels twice. Experts take fp32 rows, because the router does.
void Transformer::RunExperts(const RankContext& rank, const Layer& layer,
                             const TensorView& h) const {
  const parallel::Shard own =
      rank.tensor == nullptr
          ? parallel::Shard{0, h.dim(0)}
          : parallel::ShardOf(h.dim(0), rank.tensor->size(), rank.tensor->rank());
  const TensorView own_rows = h.Rows(own.begin, own.size());
  // Others may still be reading this rank's columns of h, and experts add to its rows.
  if (rank.tensor != nullptr) rank.tensor->Barrier();
  const TensorView x = Norm(rank, own_rows, layer.post_norm, DType::kF32);
  std::get<MoeBlock>(layer.mlp).Forward(rank, x, own_rows);
  GatherRows(rank, h);
}

void Transformer::RunAttention(const RankContext& rank, const Batch& batch, int64_t index,
                               const compute::RopeRows& rope, const TensorView& h) const {
  const trace::Span span(trace::SpanKind::kAttention);
  const Layer& layer = LayerAt(index);
  const TensorView x = Norm(rank, h, layer.input_norm, rank.exec.precision().activations);
  std::visit([&](const auto& attention) { attention.Forward(rank, batch, index, rope, x, h); },
             layer.attention);
}

void Transformer::Layers(const RankContext& rank, const Batch& batch, int64_t first, int64_t last,
                         const TensorView& h) const {
  const Workspace::Scope all_layers(*rank.workspace);
  const compute::RopeRows rope = RotaryRows(rank, batch);
  for (int64_t index = first; index < last; ++index) {
    trace::SetLayer(index);
    const Workspace::Scope scope(*rank.workspace);
    RunAttention(rank, batch, index, rope, h);
    rank.Poll();
    RunMlp(rank, LayerAt(index), h);
    rank.Poll();
  }
  trace::SetLayer(-1);
}

// The rows of h whose logits are wanted, of all ranks that share a context: what each has is
// gathered, one rank's rows after the other's, and brought into the order in which they are wanted.
TensorView Transformer::WantedRows(const RankContext& rank, const Batch& batch,
                                   const TensorView& h) const {
  const std::span<const int32_t> wanted = batch.logits_rows;
  Workspace& ws = *rank.workspace;
  const Shape shape{static_cast<int64_t>(wanted.size()), spec_.hidden};
  const TensorView rows = ws.TakeTensor(DType::kF32, shape);
  if (rank.context == nullptr) {
    compute::GatherRows(rank.exec, h, wanted, rows);
    return rows;
  }
  const auto has = [&](int32_t row, int r) {
    return row >= batch.first_row(r) && row < batch.row_ends[static_cast<size_t>(r)];
  };
  const TensorView gathered = ws.TakeTensor(DType::kF32, shape);
  const std::span<int32_t> own = ws.Take<int32_t>(shape[0]);  // of h, one after the other's place
  const std::span<int32_t> places = ws.Take<int32_t>(shape[0]);
  const std::span<int64_t> ends = ws.Take<int64_t>(rank.context->size());
  size_t num_own = 0;
  int32_t num_placed = 0;
  for (int r = 0; r < rank.context->size(); ++r) {
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (!has(wanted[i], r)) continue;
      if (r == rank.context->rank())
        own[num_own++] = wanted[i] - static_cast<int32_t>(batch.first_row(r));
      places[i] = num_placed++;
    }
    ends[static_cast<size_t>(r)] = num_placed;
  }
  const auto num_rows = static_cast<int64_t>(num_own);
  const int64_t own_end = ends[static_cast<size_t>(rank.context->rank())];
  compute::GatherRows(rank.exec, h, own.first(num_own),
                      gathered.Rows(own_end - num_rows, num_rows));
  GatherRows(rank, *rank.context, gathered, ends);
  compute::GatherRows(rank.exec, gathered, places, rows);
  return rows;
}

TensorView Transformer::Head(const RankContext& rank, const Batch& batch,
                             const TensorView& h) const {
  const trace::Span span(trace::SpanKind::kHead);
  Workspace& ws = *rank.workspace;
  const TensorView last = WantedRows(rank, batch, h);
  if (rank.context != nullptr && rank.context->rank() != 0) return {};
  const int64_t wanted = last.dim(0);
  const TensorView x = Norm(rank, last, final_norm_, rank.exec.precision().activations);
  const TensorView logits = ws.TakeTensor(DType::kF32, {wanted, spec_.vocab_size});
  MatMul(rank.exec, x, head_, head_cut_.Own(logits));
  head_cut_.Gather(rank, logits);
  return logits;
}

}  // namespace

std::unique_ptr<Model> LoadTransformer(const ModelSpec& spec, WeightLoader& loader) {
  return std::make_unique<Transformer>(spec, loader);
}

std::vector<std::string> DescribeUnused(const ModelSpec& spec,
                                        std::span<const std::string_view> unused) {
  struct Group {
    std::string_view what;
    std::vector<std::string_view> names;
  };
  Group groups[] = {{"of the layers for speculative decoding", {}},
                    {"of other modalities", {}},
                    {"that the model has no use for", {}}};
  for (const std::string_view name : unused) {
    const bool is_other = std::ranges::any_of(spec.names.others, [&](const std::string& beginning) {
      return name.starts_with(beginning);
    });
    const bool is_extra =
        !is_other && spec.num_extra_layers > 0 && checkpoint::LayerOf(name) >= spec.num_layers();
    groups[is_extra ? 0 : is_other ? 1 : 2].names.push_back(name);
  }
  std::vector<std::string> lines;
  for (const Group& group : groups)
    if (!group.names.empty())
      lines.push_back(fmt::format("{} tensors {} are not loaded, the first is {}",
                                  group.names.size(), group.what, group.names.front()));
  return lines;
}

}  // namespace wideload::model
