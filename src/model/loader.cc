#include "model/loader.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace wideload::model {

WeightLoader::WeightLoader(checkpoint::Checkpoint& checkpoint, const LoadOptions& options)
    : checkpoint_(checkpoint), options_(options), total_bytes_(checkpoint.TotalBytes()) {
  WIDELOAD_CHECK(options.mode != LoadMode::kAttach || options.arena != nullptr,
                 "attaching without an arena");
}

TensorView WeightLoader::Take(const std::string& name, const Shape& shape) {
  const TensorView view = checkpoint_.Get(name, shape);
  // A tensor that is read twice (tied embeddings) counts until the total is reached.
  done_bytes_ = std::min(done_bytes_ + view.num_bytes(), total_bytes_);
  if (is_reading() && options_.progress) options_.progress(done_bytes_, total_bytes_);
  return view;
}

Buffer WeightLoader::Store(int64_t num_bytes) {
  stored_bytes_ += Arena::PieceBytes(num_bytes);
  if (options_.mode == LoadMode::kMeasure) return {};
  return options_.arena != nullptr ? options_.arena->Take(num_bytes) : Buffer(num_bytes);
}

Buffer WeightLoader::Vector(const std::string& name, int64_t n) {
  const TensorView view = Take(name, {n});
  const int64_t num_bytes = n * DTypeBytes(DType::kF32);
  packed_bytes_ += num_bytes;
  Buffer buffer = Store(num_bytes);
  if (!is_reading()) return buffer;
  auto* out = reinterpret_cast<float*>(buffer.data());
  for (int64_t i = 0; i < n; ++i) out[i] = LoadFloat(view.dtype(), view.raw(), i);
  return buffer;
}

compute::PackedMatrix WeightLoader::Matrix(std::span<const Part> parts, int64_t k,
                                           compute::WeightFormat format) {
  compute::PackedShape shape{.kernels = options_.kernels, .format = format, .k = k};
  std::vector<compute::WeightSource> sources;
  for (const Part& part : parts) {
    sources.push_back(compute::WeightSource::Plain(part.name, Take(part.name, {part.rows, k})));
    shape.n += part.rows;
  }
  packed_bytes_ += shape.num_bytes();
  Buffer storage = Store(shape.num_bytes());
  if (options_.mode == LoadMode::kMeasure) return {};
  if (!is_reading()) return compute::PackedMatrix::Over(shape, std::move(storage));
  return compute::PackedMatrix::Pack(shape, sources, *options_.pool, std::move(storage));
}

compute::ExpertWeights WeightLoader::Expert(const ExpertNames& names, int64_t hidden,
                                            int64_t inner) {
  const compute::ExpertShape shape{.kernels = options_.kernels,
                                   .format = compute::PlainFormat(options_.kernels),
                                   .hidden = hidden,
                                   .inner = inner};
  const auto source = [&](const std::string& name, int64_t n, int64_t k) {
    return compute::WeightSource::Plain(name, Take(name, {n, k}));
  };
  const compute::WeightSource gate = source(names.gate, inner, hidden);
  const compute::WeightSource up = source(names.up, inner, hidden);
  const compute::WeightSource down = source(names.down, hidden, inner);
  packed_bytes_ += shape.num_bytes();
  Buffer storage = Store(shape.num_bytes());
  if (options_.mode == LoadMode::kMeasure) return {};
  if (!is_reading()) return compute::ExpertWeights::Over(shape, std::move(storage));
  return compute::ExpertWeights::Pack(shape, gate, up, down, *options_.pool, std::move(storage));
}

WeightLoader::Table WeightLoader::Raw(const std::string& name, const Shape& shape) {
  const TensorView view = Take(name, shape);
  packed_bytes_ += view.num_bytes();
  Table table{.data = Store(view.num_bytes()), .dtype = view.dtype()};
  if (is_reading())
    std::copy_n(static_cast<const std::byte*>(view.raw()), view.num_bytes(), table.data.data());
  return table;
}

checkpoint::RopeTables WeightLoader::Rope(const checkpoint::RopeConfig& config, int64_t head_dim,
                                          int64_t max_positions) {
  checkpoint::RopeTables tables{.max_positions = max_positions, .num_pairs = head_dim / 2};
  const int64_t num_bytes = max_positions * tables.num_pairs * DTypeBytes(DType::kF32);
  tables.cos_buffer = Store(num_bytes);
  tables.sin_buffer = Store(num_bytes);
  if (is_reading()) checkpoint::FillRopeTables(config, head_dim, tables);
  return tables;
}

}  // namespace wideload::model
