#include "model/loader.h"

#include <algorithm>

namespace wideload::model {

WeightLoader::WeightLoader(checkpoint::Checkpoint& checkpoint, const LoadOptions& options)
    : checkpoint_(checkpoint), options_(options), total_bytes_(checkpoint.TotalBytes()) {}

TensorView WeightLoader::Take(const std::string& name, const Shape& shape) {
  const TensorView view = checkpoint_.Get(name, shape);
  // A tensor that is read twice (tied embeddings) counts until the total is reached.
  done_bytes_ = std::min(done_bytes_ + view.num_bytes(), total_bytes_);
  if (options_.progress) options_.progress(done_bytes_, total_bytes_);
  return view;
}

Buffer WeightLoader::Vector(const std::string& name, int64_t n) {
  const TensorView view = Take(name, {n});
  Buffer buffer(DType::kF32, {n});
  auto* out = reinterpret_cast<float*>(buffer.data());
  for (int64_t i = 0; i < n; ++i) out[i] = LoadFloat(view.dtype(), view.raw(), i);
  packed_bytes_ += buffer.num_bytes();
  return buffer;
}

compute::PackedMatrix WeightLoader::Matrix(std::span<const Part> parts, int64_t k,
                                           compute::MatrixPrecision precision) {
  std::vector<TensorView> views;
  for (const Part& part : parts) views.push_back(Take(part.name, {part.rows, k}));
  compute::PackedMatrix matrix =
      compute::PackedMatrix::Pack(options_.kernels, views, *options_.pool, precision);
  packed_bytes_ += matrix.num_bytes();
  return matrix;
}

compute::PackedMatrix WeightLoader::GateUp(const std::string& gate, const std::string& up,
                                           int64_t rows, int64_t k) {
  const TensorView gate_view = Take(gate, {rows, k});
  const TensorView up_view = Take(up, {rows, k});
  compute::PackedMatrix matrix =
      compute::PackedMatrix::PackGateUp(options_.kernels, gate_view, up_view, *options_.pool);
  packed_bytes_ += matrix.num_bytes();
  return matrix;
}

TensorView WeightLoader::Raw(const std::string& name, const Shape& shape) {
  return Take(name, shape);
}

}  // namespace wideload::model
