// Weight matrices packed once at load for one kernel set; the same path serves 1 row and thousands.
// Immutable once made, so any number of ranks and threads may share one.
#pragma once

#include <cstdint>
#include <span>

#include "compute/exec.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

namespace wideload::compute {

// What a matrix is multiplied with: kCompute takes rows of ComputeDType and stores weights in it;
// kF32 takes fp32 rows and keeps weights in fp32 under every kernel set (router).
enum class MatrixPrecision { kCompute, kF32 };

// Bytes that Pack will allocate for an [n, k] weight; used to add up memory before loading.
int64_t PackedBytes(KernelSet kernels, int64_t n, int64_t k,
                    MatrixPrecision precision = MatrixPrecision::kCompute);

// The same for the gate [i, k] and up [i, k] of PackGateUp.
int64_t PackedGateUpBytes(KernelSet kernels, int64_t i, int64_t k);

// A matrix but for its values.
struct PackedShape {
  KernelSet kernels = KernelSet::kReference;
  int64_t n = 0;  // output features (of gate + up: 2 i)
  int64_t k = 0;
  MatrixPrecision precision = MatrixPrecision::kCompute;
  bool gate_up = false;

  int64_t num_bytes() const;
  bool operator==(const PackedShape&) const = default;
};

// W [n (out), k (in)] in the kernel set's layout.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  // Packs the concatenation along dimension 0 of `parts`, each [n_i, k] row-major in F32, BF16 or
  // F16 (so q, k and v become one matrix). Under the bf16 kernel sets F32 and F16 weights are
  // rounded to bf16. Memory: `storage`, zero bytes of the packed size; its own when that is empty.
  static PackedMatrix Pack(KernelSet kernels, std::span<const TensorView> parts, ThreadPool& pool,
                           MatrixPrecision precision = MatrixPrecision::kCompute,
                           Buffer storage = {});
  // gate [i, k] and up [i, k], interleaved for MatMulSwiGlu. Memory: as Pack.
  static PackedMatrix PackGateUp(KernelSet kernels, const TensorView& gate, const TensorView& up,
                                 ThreadPool& pool, Buffer storage = {});
  // The matrix that was packed into `packed` before, by this process or another one.
  static PackedMatrix Over(const PackedShape& shape, Buffer packed);

  const PackedShape& shape() const { return shape_; }
  int64_t n() const { return shape_.n; }
  int64_t k() const { return shape_.k; }
  KernelSet kernels() const { return shape_.kernels; }
  MatrixPrecision precision() const { return shape_.precision; }
  bool gate_up() const { return shape_.gate_up; }
  int64_t num_bytes() const { return data_.num_bytes(); }
  const std::byte* data() const { return data_.data(); }
  // Copies the packed bytes of a matrix of the same shape and kernel set: how an expert moves into
  // a slot.
  void CopyFrom(const PackedMatrix& other);

 private:
  PackedMatrix(const PackedShape& shape, Buffer storage);

  PackedShape shape_;
  Buffer data_;
};

}  // namespace wideload::compute
