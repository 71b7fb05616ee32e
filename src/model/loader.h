// Reads weights of a checkpoint into packed matrices, checking shapes and counting bytes for
// progress. Used while a model is built.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "compute/matrix.h"

namespace wideload::model {

// Called with the bytes read so far of the total, from one thread.
using Progress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

struct LoadOptions {
  compute::KernelSet kernels = compute::KernelSet::kReference;
  ThreadPool* pool = nullptr;
  Progress progress;  // may be empty
};

class WeightLoader {
 public:
  WeightLoader(checkpoint::Checkpoint& checkpoint, const LoadOptions& options);

  // A vector as fp32. Errors: kNotFound, kInvalid naming file, tensor, found and allowed shape.
  Buffer Vector(const std::string& name, int64_t n);
  // The concatenation of [rows_i, k] tensors. Errors: as above.
  struct Part {
    std::string name;
    int64_t rows = 0;
  };
  compute::PackedMatrix Matrix(
      std::span<const Part> parts, int64_t k,
      compute::MatrixPrecision precision = compute::MatrixPrecision::kCompute);
  compute::PackedMatrix GateUp(const std::string& gate, const std::string& up, int64_t rows,
                               int64_t k);
  // The tensor as it lies in the file; the checkpoint must outlive its use.
  TensorView Raw(const std::string& name, const Shape& shape);

  ThreadPool& pool() const { return *options_.pool; }
  compute::KernelSet kernels() const { return options_.kernels; }
  int64_t packed_bytes() const { return packed_bytes_; }

 private:
  TensorView Take(const std::string& name, const Shape& shape);

  checkpoint::Checkpoint& checkpoint_;
  LoadOptions options_;
  int64_t done_bytes_ = 0;
  int64_t total_bytes_ = 0;
  int64_t packed_bytes_ = 0;
};

}  // namespace wideload::model
