// Weight matrices packed once at load for one kernel set; the same path serves 1 row and thousands.
// A packed matrix is one block of bytes, scales and bias included. Immutable once made, so any
// number of ranks and threads may share one.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "base/thread_pool.h"
#include "compute/weight_format.h"
#include "compute/weight_source.h"
#include "tensor/buffer.h"

namespace wideload::compute {

// A matrix but for its values.
struct PackedShape {
  KernelSet kernels = KernelSet::kReference;
  WeightFormat format = WeightFormat::kF32;
  int64_t n = 0;  // output features (of gate + up: 2 i)
  int64_t k = 0;
  bool gate_up = false;  // gate [n / 2, k] and up [n / 2, k], interleaved for MatMulGated
  bool bias = false;

  // What Pack allocates: a multiple of 64.
  int64_t num_bytes() const;
  bool operator==(const PackedShape&) const = default;
};

// W [n (out), k (in)] and perhaps a bias [n], in the kernel set's layout.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  // Packs the concatenation of `parts` along their output features (so q, k and v become one
  // matrix), or with shape.gate_up the two parts gate and up. Plain shapes (fp32, bf16) take any
  // source: plain values are rounded to bf16 once, block-scaled ones are value * scale in fp32 and
  // then as plain ones. A block-scaled shape takes sources of its own format and keeps their codes.
  // Parts without a bias have zeros where shape.bias is set. Memory: `storage`, zero bytes of
  // shape.num_bytes(); its own when that is empty. Errors: kUnsupported naming the source: codes
  // that cannot be kept (WeightSource::CheckKeepsCodes), kMxfp4 scales that take a value out of the
  // normal range of bf16; kCorrupt: a NaN in kFp8.
  static PackedMatrix Pack(const PackedShape& shape, std::span<const WeightSource> parts,
                           ThreadPool& pool, Buffer storage = {});
  // The matrix that was packed into `packed` before, by this process or another one.
  static PackedMatrix Over(const PackedShape& shape, Buffer packed);

  const PackedShape& shape() const { return shape_; }
  int64_t n() const { return shape_.n; }
  int64_t k() const { return shape_.k; }
  KernelSet kernels() const { return shape_.kernels; }
  WeightFormat format() const { return shape_.format; }
  bool gate_up() const { return shape_.gate_up; }
  int64_t num_bytes() const { return data_.num_bytes(); }
  const std::byte* data() const { return data_.data(); }
  // All of it; the matrix is of no use afterwards.
  Buffer TakeBytes() && { return std::move(data_); }
  // One addend per packed column, fp32; null without a bias.
  const float* bias() const;

 private:
  PackedMatrix(const PackedShape& shape, Buffer storage);

  PackedShape shape_;
  Buffer data_;
};

// An expert but for its values: gate and up [inner, hidden], down [hidden, inner]; or a part of
// one: some of the output features of each, and of their inputs all.
struct ExpertShape {
  KernelSet kernels = KernelSet::kReference;
  WeightFormat format = WeightFormat::kF32;
  int64_t hidden = 0;
  int64_t inner = 0;
  bool bias = false;
  int64_t inner_part = 0;   // output features of gate and of up; 0: all
  int64_t hidden_part = 0;  // of down; 0: all

  int64_t own_inner() const { return inner_part > 0 ? inner_part : inner; }
  int64_t own_hidden() const { return hidden_part > 0 ? hidden_part : hidden; }
  PackedShape gate_up() const;
  PackedShape down() const;
  // Both matrices, one after the other.
  int64_t num_bytes() const;
  bool operator==(const ExpertShape&) const = default;
};

// The weights of one expert, or of a part of one, y = down(activation(gate x, up x)), as one block
// of bytes: whoever holds a copy of the block (a slot, another process) can make the weights over
// it.
class ExpertWeights {
 public:
  ExpertWeights() = default;
  // Memory: `storage`, zero bytes of shape.num_bytes(); its own when that is empty. Errors: as
  // PackedMatrix::Pack.
  static ExpertWeights Pack(const ExpertShape& shape, const WeightSource& gate,
                            const WeightSource& up, const WeightSource& down, ThreadPool& pool,
                            Buffer storage = {});
  // The expert that was packed into `packed` before, or whose block was or will be copied there.
  static ExpertWeights Over(const ExpertShape& shape, Buffer packed);

  const ExpertShape& shape() const { return shape_; }
  const PackedMatrix& gate_up() const { return gate_up_; }
  const PackedMatrix& down() const { return down_; }
  // The block that holds both.
  std::span<std::byte> bytes() const {
    return {block_.data(), static_cast<size_t>(block_.num_bytes())};
  }
  // The block; the weights are of no use afterwards.
  Buffer TakeBytes() && { return std::move(block_); }

 private:
  ExpertWeights(const ExpertShape& shape, Buffer storage);
  // The parts of the block that the two matrices take.
  Buffer GateUpStorage() const;
  Buffer DownStorage() const;

  ExpertShape shape_;
  Buffer block_;
  PackedMatrix gate_up_;
  PackedMatrix down_;
};

}  // namespace wideload::compute
