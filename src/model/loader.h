// Reads weights of a checkpoint into packed matrices, checking shapes and counting bytes for
// progress; or finds them in memory where another process has packed them; or only adds up how much
// memory they take. The same calls in the same order do all three. Used while a model is built.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/rope_table.h"
#include "compute/matrix.h"

namespace wideload::model {

// Called with the bytes read so far of the total, from one thread.
using Progress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

enum class LoadMode {
  kRead,     // read and pack
  kAttach,   // the arena's block was filled by a kRead of the same model: nothing is read
  kMeasure,  // for stored_bytes(): nothing is read or kept, the model made is of no use
};

struct LoadOptions {
  compute::KernelSet kernels = compute::KernelSet::kReference;
  ThreadPool* pool = nullptr;  // only for kRead
  Progress progress = {};      // may be empty
  LoadMode mode = LoadMode::kRead;
  Arena* arena = nullptr;  // where what is kept lies; null with kRead: in memory of its own
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
  compute::PackedMatrix Matrix(std::span<const Part> parts, int64_t k,
                               compute::WeightFormat format);
  compute::PackedMatrix Matrix(std::span<const Part> parts, int64_t k) {
    return Matrix(parts, k, compute::PlainFormat(options_.kernels));
  }
  // The three matrices of an expert or a dense gated MLP. Errors: as above.
  struct ExpertNames {
    std::string gate;
    std::string up;
    std::string down;
  };
  compute::ExpertWeights Expert(const ExpertNames& names, int64_t hidden, int64_t inner);
  // A copy of the tensor as it is, and its type.
  struct Table {
    Buffer data;
    DType dtype = DType::kF32;
  };
  Table Raw(const std::string& name, const Shape& shape);
  checkpoint::RopeTables Rope(const checkpoint::RopeConfig& config, int64_t head_dim,
                              int64_t max_positions);

  compute::KernelSet kernels() const { return options_.kernels; }
  // Of the weights so far.
  int64_t packed_bytes() const { return packed_bytes_; }
  // Of an arena that holds all that was kept so far.
  int64_t stored_bytes() const { return stored_bytes_; }

 private:
  TensorView Take(const std::string& name, const Shape& shape);
  Buffer Store(int64_t num_bytes);
  bool is_reading() const { return options_.mode == LoadMode::kRead; }

  checkpoint::Checkpoint& checkpoint_;
  LoadOptions options_;
  int64_t done_bytes_ = 0;
  int64_t total_bytes_ = 0;
  int64_t packed_bytes_ = 0;
  int64_t stored_bytes_ = 0;
};

}  // namespace wideload::model
