// Reads weights of a checkpoint into packed matrices, checking shapes and counting bytes for
// progress; or finds them in memory where another process has packed them; or only adds up how much
// memory they take. The same calls in the same order do all three. Used while a model is built, by
// one thread.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "compute/matrix.h"
#include "compute/weight_source.h"
#include "device/device.h"
#include "model/load_faults.h"
#include "model/spec.h"

namespace wideload::model {

// Called with the bytes read so far of the total, from one thread.
using Progress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

// What is done with the weights.
enum class LoadMode {
  kRead,    // read and pack
  kAttach,  // the arena's block was filled by a kRead of the same model: nothing is read
  // For stored_bytes() and faults(): nothing is read or kept, the model made is of no use.
  kMeasure,
};

// Where an expert's block lies, and whether this load fills it.
struct PlacedExpert {
  Buffer storage;
  bool is_read = true;
};

// What is loaded of the matrices that the ranks of a tensor-parallel group divide.
struct TensorShards {
  TensorRank own;                   // whose model is made
  std::vector<int32_t> kept = {0};  // whose parts lie in the arena, own.rank's too; ascending
};

// What is loaded of experts that ranks divide by columns.
struct ExpertParts {
  int32_t size = 1;                 // parts of each expert
  std::vector<int32_t> kept = {0};  // those that are loaded, ascending
};

// How a checkpoint without weights would store them, as its config.json says.
struct AssumedWeights {
  std::string quantization;    // quant_method; "": none
  DType dtype = DType::kBF16;  // of what is not quantised
};

// How weights are packed, and which of them.
struct LoadOptions {
  compute::KernelSet kernels = compute::KernelSet::kReference;
  ThreadPool* pool = nullptr;  // for what is read
  Progress progress = {};      // may be empty
  LoadMode mode = LoadMode::kRead;
  Arena* arena = nullptr;  // where what is kept lies; null with kRead: in memory of its own
  // Of kRead with an arena in the memory of a device, whose stream this is: what is packed is
  // copied there. Null: an arena is written to.
  device::Stream* upload = nullptr;
  TensorShards shards = {};  // keeping several takes an arena, or measures
  ExpertParts expert_parts = {};
  // Layers that are kept; none: all. The embedding goes with the first of the model, the head with
  // the last. What is not kept takes no memory and is not read.
  std::optional<parallel::Shard> layers = {};
  // Of kMeasure: what tensors that are missing are taken for, which then is no fault.
  std::optional<AssumedWeights> assumed = {};
  // Which experts are kept, by MoE layer (counted from 0) and expert; empty: all. The others take
  // no memory and are not read.
  std::function<bool(int32_t moe_index, int32_t expert)> owns = {};
  // Where blocks of experts are kept, each with its bytes; empty: as everything else. `mode` is
  // then that of the rest; kMeasure looks at no place. Block e * K + i is the i-th of the K kept
  // parts of expert e.
  std::function<PlacedExpert(int32_t moe_index, int32_t block, int64_t num_bytes)> place_expert =
      {};
};

class WeightLoader {
 public:
  // `checkpoint` must outlive this object.
  WeightLoader(checkpoint::Checkpoint& checkpoint, const LoadOptions& options);

  // Whether the checkpoint holds the tensor, or is assumed to.
  bool Has(const std::string& name) const;
  // Whether this rank keeps the weights of that expert.
  bool Owns(int32_t moe_index, int32_t expert) const {
    return !options_.owns || options_.owns(moe_index, expert);
  }

  // A tensor of floating-point numbers, to be read by one of the functions below; nothing is read
  // yet. Errors: kNotFound, with what the checkpoint has instead; kInvalid naming file, tensor,
  // found and allowed shape or type.
  TensorView Tensor(const std::string& name, const Shape& shape) const;
  // A tensor of any type, likewise; within the `look` of Source.
  TensorView Stored(const std::string& name, const Shape& shape) const {
    return checkpoint_.Get(name, shape);
  }
  // A weight [n, k] in whichever format the checkpoint stores it: `name`.weight, with
  // weight_scale_inv when it is fp8, or weight_packed, weight_scale and weight_shape when it is
  // int4. Errors: as Tensor; kUnsupported where these are of a kind that cannot be computed.
  compute::WeightSource Weight(const std::string& name, int64_t n, int64_t k) const;
  // What `look` returns, a weight [n, k] of the tensor `name`. While measuring, what it throws goes
  // to faults().
  compute::WeightSource Source(const std::string& name, int64_t n, int64_t k,
                               const std::function<compute::WeightSource()>& look) const;
  // The same with `name`.bias.
  compute::WeightSource WeightAndBias(const std::string& name, int64_t n, int64_t k) const;

  // A vector as fp32. Errors: as Tensor.
  Buffer Vector(const std::string& name, int64_t n);
  // The sources one below the other (with the biases they have), in `format`, or when that is empty
  // as they are stored: block-scaled when all of them are, in one format, else as
  // compute::PlainFormat. Errors: as PackedMatrix::Pack.
  compute::PackedMatrix Matrix(std::span<const compute::WeightSource> sources,
                               std::optional<compute::WeightFormat> format = {});
  compute::PackedMatrix Matrix(const compute::WeightSource& source,
                               std::optional<compute::WeightFormat> format = {}) {
    return Matrix(std::span(&source, 1), format);
  }
  // gate and up [inner, hidden] as one matrix for MatMulGated, in the format they are stored in.
  compute::PackedMatrix GateUp(const compute::WeightSource& gate, const compute::WeightSource& up);
  // Calls load(rank) for each rank whose parts are kept; it makes these parts by the functions
  // above. Returns those of the model's own rank.
  template <class Load>
  auto EachShard(const Load& load) {
    decltype(load(int32_t{0})) own;
    for (const int32_t rank : options_.shards.kept) {
      auto part = load(rank);
      if (rank == options_.shards.own.rank) own = std::move(part);
    }
    return own;
  }
  const TensorRank& tensor_rank() const { return options_.shards.own; }
  // The layers that are kept, of so many.
  parallel::Shard LayersOf(int64_t num_layers) const {
    return options_.layers.value_or(parallel::Shard{0, num_layers});
  }
  // The three matrices of a routed expert.
  struct ExpertSources {
    compute::WeightSource gate;
    compute::WeightSource up;
    compute::WeightSource down;

    std::array<compute::WeightSource, 3> all() const { return {gate, up, down}; }
  };
  const ExpertParts& expert_parts() const { return options_.expert_parts; }
  // gate and up [inner, hidden] and down [hidden, inner] of the expert, or some rows of each, as
  // one block of bytes, in the format they are stored in, where LoadOptions::place_expert says.
  compute::ExpertWeights Expert(int32_t moe_index, int32_t block, const ExpertSources& sources);
  // A copy of the tensor as it is, and its type.
  struct Table {
    Buffer data;
    DType dtype = DType::kF32;
  };
  Table Raw(const std::string& name, const Shape& shape);

  compute::KernelSet kernels() const { return options_.kernels; }
  // What is wrong with the tensors that were asked for, when measuring: then none of these
  // functions throws, so that everything is found at once.
  const LoadFaults& faults() const { return faults_; }
  // Of the weights so far.
  int64_t packed_bytes() const { return packed_bytes_; }
  // Of an arena that holds all that was kept so far.
  int64_t stored_bytes() const { return stored_bytes_; }
  // Of the largest expert so far.
  int64_t expert_bytes() const { return expert_bytes_; }

 private:
  template <class Value, class Look>
  Value Noting(const std::string& name, const Look& look, const Value& instead) const;
  compute::WeightSource InsteadOf(const std::string& name, int64_t n, int64_t k) const;
  void CheckScales(std::span<const compute::WeightSource> sources, bool is_read);
  compute::WeightSource StoredWeight(const std::string& name, int64_t n, int64_t k) const;
  compute::WeightSource PackedWeight(const std::string& name, int64_t n, int64_t k) const;
  compute::WeightSource BlockScaledWeight(const std::string& weight, int64_t n, int64_t k) const;
  void RefuseIncomplete(const std::string& weight) const;
  void NoteRead(int64_t num_bytes);
  compute::PackedMatrix Pack(compute::PackedShape shape,
                             std::span<const compute::WeightSource> sources);
  compute::WeightFormat FormatOf(std::span<const compute::WeightSource> sources) const;
  compute::ExpertShape ShapeOf(const ExpertSources& sources) const;
  compute::ExpertWeights Fill(const compute::ExpertShape& shape, const ExpertSources& sources,
                              Buffer storage);
  Buffer Store(int64_t num_bytes);
  Buffer Room(int64_t num_bytes);
  Buffer Keep(Buffer packed);
  bool is_reading() const { return options_.mode == LoadMode::kRead; }

  checkpoint::Checkpoint& checkpoint_;
  LoadOptions options_;
  int64_t done_bytes_ = 0;
  int64_t mapped_bytes_ = 0;  // read since pages were given back
  int64_t total_bytes_ = 0;
  int64_t packed_bytes_ = 0;
  int64_t stored_bytes_ = 0;
  int64_t scale_bytes_ = 0;  // looked at while measuring
  mutable LoadFaults faults_;
  int64_t expert_bytes_ = 0;
};

}  // namespace wideload::model
