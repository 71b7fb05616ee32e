#include "model/moe_block.h"

#include <vector>

#include "base/error.h"
#include "trace/trace.h"

namespace wideload::model {
namespace {

using compute::WeightFormat;
using compute::WeightSource;

using ExpertSources = WeightLoader::ExpertSources;

// The part of `all` [E, ...] that belongs to one expert.
TensorView Slice(const TensorView& all, int32_t expert) {
  std::vector<int64_t> dims;
  for (int i = 1; i < all.shape().rank(); ++i) dims.push_back(all.dim(i));
  const Shape shape(dims);
  const int64_t bytes = shape.num_elements() * DTypeBytes(all.dtype());
  return TensorView(all.dtype(), shape, static_cast<const std::byte*>(all.raw()) + expert * bytes);
}

// Where the tensors of one layer's experts are: "model.layers.3.mlp.experts.", its sizes.
struct ExpertPlace {
  const ModelSpec& model;
  std::string prefix;
  const WeightLoader& loader;
  int64_t hidden() const { return model.hidden; }
  int64_t width() const { return model.experts.width; }
  int64_t experts() const { return model.moe.num_experts; }
  WeightSource Whole(const std::string& name, int64_t n, int64_t k, int32_t expert) const;
  WeightSource Mxfp4(const std::string& name, int64_t n, int64_t k, int32_t expert) const;
};

ExpertSources EachSources(const ExpertPlace& at, int32_t expert) {
  const auto weight = [&](const std::string& name, int64_t n, int64_t k) {
    const std::string full = fmt::format("{}{}.{}", at.prefix, expert, name);
    return at.model.experts.has_bias ? at.loader.WeightAndBias(full, n, k)
                                     : at.loader.Weight(full, n, k);
  };
  const TensorNames& names = at.model.names;
  return {weight(names.gate, at.width(), at.hidden()), weight(names.up, at.width(), at.hidden()),
          weight(names.down, at.hidden(), at.width())};
}

// One expert's [n, k] of a tensor that holds all of them.
WeightSource ExpertPlace::Whole(const std::string& name, int64_t n, int64_t k,
                                int32_t expert) const {
  const std::string full = prefix + name;
  WeightSource source = [&] {
    if (loader.Has(full + "_blocks")) return Mxfp4(full, n, k, expert);
    if (model.expert_storage == ExpertStorage::kOutputMajor)
      return WeightSource::Plain(full, Slice(loader.Tensor(full, {experts(), n, k}), expert));
    return WeightSource::Plain(full, Slice(loader.Tensor(full, {experts(), k, n}), expert))
        .Transposed();
  }();
  if (!model.experts.has_bias) return source;
  return source.WithBias(Slice(loader.Tensor(full + "_bias", {experts(), n}), expert));
}

WeightSource ExpertPlace::Mxfp4(const std::string& name, int64_t n, int64_t k,
                                int32_t expert) const {
  constexpr int64_t kBlock = 32;
  const std::string blocks = name + "_blocks";
  return loader.Source(blocks, n, k, [&] {
    if (k % kBlock != 0)
      Throw(ErrorKind::kUnsupported,
            "{}: has {} input features; implemented are multiples of the {} of a block", blocks, k,
            kBlock);
    return WeightSource::Mxfp4(
        blocks, Slice(loader.Stored(blocks, {experts(), n, k / kBlock, kBlock / 2}), expert),
        Slice(loader.Stored(name + "_scales", {experts(), n, k / kBlock}), expert));
  });
}

ExpertSources FusedSources(const ExpertPlace& at, int32_t expert) {
  const int64_t width = at.width();
  const WeightSource gate_up = at.Whole("gate_up_proj", 2 * width, at.hidden(), expert);
  const WeightSource down = at.Whole("down_proj", at.hidden(), width, expert);
  if (at.model.expert_storage == ExpertStorage::kInputMajorInterleaved)
    return {gate_up.Rows(0, width, 2), gate_up.Rows(1, width, 2), down};
  return {gate_up.Rows(0, width), gate_up.Rows(width, width), down};
}

}  // namespace

MoeBlock::MoeBlock(const ModelSpec& model, int32_t moe_index, const std::string& prefix,
                   WeightLoader& loader)
    : moe_index_(moe_index),
      num_experts_(static_cast<size_t>(model.moe.num_experts)),
      activation_(model.moe.activation),
      shared_width_(model.experts.shared_width),
      has_shared_gate_(model.experts.has_shared_gate) {
  const TensorNames& names = model.names;
  const int64_t num_experts = model.moe.num_experts;
  routed_.router =
      loader.Matrix(model.experts.has_router_bias
                        ? loader.WeightAndBias(prefix + names.router, num_experts, model.hidden)
                        : loader.Weight(prefix + names.router, num_experts, model.hidden),
                    WeightFormat::kF32);
  if (model.experts.has_correction_bias)
    routed_.correction_bias = loader.Vector(prefix + names.correction_bias, num_experts);
  ExpertPlace place{.model = model, .prefix = prefix + names.experts, .loader = loader};
  // Newer versions of the library that writes checkpoints fuse the experts of any family.
  const bool is_fused = model.expert_storage != ExpertStorage::kOutputMajor ||
                        loader.Has(place.prefix + "gate_up_proj");
  routed_.experts.resize(static_cast<size_t>(loader.expert_parts().size) * num_experts_);
  for (int32_t expert = 0; expert < num_experts; ++expert) {
    if (!loader.Owns(moe_index, expert)) continue;
    LoadExpert(expert, is_fused ? FusedSources(place, expert) : EachSources(place, expert), loader);
  }
  if (shared_width_ == 0) return;
  shared_ =
      GatedMlp({.hidden = model.hidden, .width = shared_width_}, prefix + names.shared, loader);
  if (has_shared_gate_)
    shared_gate_ = loader.Matrix(loader.Weight(prefix + names.shared_gate, 1, model.hidden),
                                 WeightFormat::kF32);
}

void MoeBlock::LoadExpert(int32_t expert, const ExpertSources& sources, WeightLoader& loader) {
  const ExpertParts& parts = loader.expert_parts();
  const auto of_part = [&](const WeightSource& source, int32_t part) {
    if (parts.size == 1) return source;
    const parallel::Shard own = ColumnCut(source.n(), {.size = parts.size}).Of(part);
    return source.Rows(own.begin, own.size());
  };
  auto block = expert * static_cast<int32_t>(parts.kept.size());
  for (const int32_t part : parts.kept)
    routed_.experts[static_cast<size_t>(part) * num_experts_ + static_cast<size_t>(expert)] =
        loader.Expert(
            moe_index_, block++,
            {of_part(sources.gate, part), of_part(sources.up, part), of_part(sources.down, part)});
}

void MoeBlock::Forward(const RankContext& rank, const TensorView& x, const TensorView& h) const {
  rank.moe->Forward(rank.exec, *rank.workspace, moe_index_, routed_, x, h);
  if (shared_width_ > 0) AddShared(rank, x, h);
}

void MoeBlock::AddShared(const RankContext& rank, const TensorView& x, const TensorView& h) const {
  const trace::Span span(trace::SpanKind::kSharedExpert);
  Workspace& ws = *rank.workspace;
  const int64_t tokens = x.dim(0);
  const TensorView rows = ws.TakeTensor(rank.exec.precision().activations, x.shape());
  Convert(rank.exec, x, rows);
  if (!has_shared_gate_) {
    shared_.Forward(rank, activation_, rows, h);
    return;
  }
  const TensorView y = shared_.Output(rank, activation_, rows);
  const TensorView logits = ws.TakeTensor(DType::kF32, {tokens, 1});
  const TensorView weights = ws.TakeTensor(DType::kF32, {tokens, 1});
  const TensorView ids = ws.TakeTensor(DType::kI32, {tokens, 1});
  MatMul(rank.exec, x, shared_gate_, logits);
  // The router's sigmoid, of a router with one expert.
  Route(rank.exec, logits, {.score = compute::RouterScore::kSigmoid, .normalize = false}, ids,
        weights);
  const std::span<const std::byte*> y_rows = ws.Take<const std::byte*>(tokens);
  for (int64_t t = 0; t < tokens; ++t)
    y_rows[static_cast<size_t>(t)] = static_cast<const std::byte*>(y.raw()) + t * y.row_bytes();
  CombineRows(rank.exec, y_rows, weights, h);
}

}  // namespace wideload::model
