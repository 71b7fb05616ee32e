#include "compute/matrix.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "compute/kernels.h"

namespace wideload::compute {
namespace {

// Two layouts, both in groups of 16 columns. F32: [group][k][16]. BF16: [group][k / 2][16][2],
// which is what vdpbf16ps and AMX tiles read, with k padded by zeros to the 32 of one tile.
constexpr int64_t kTileK = 32;

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

bool StoresF32(KernelSet kernels, MatrixPrecision precision) {
  return precision == MatrixPrecision::kF32 || ComputeDType(kernels) == DType::kF32;
}

int64_t GroupBytes(bool is_f32, int64_t k) {
  return is_f32 ? k * kGroupColumns * 4 : RoundUp(k, kTileK) * kGroupColumns * 2;
}

int64_t NumGroups(int64_t n) { return RoundUp(n, kGroupColumns) / kGroupColumns; }

// The weights of one output feature.
struct Column {
  DType dtype = DType::kF32;
  const std::byte* data = nullptr;  // null: no such column, stays zero
};

void PackColumnF32(const Column& column, int64_t k, float* group) {
  for (int64_t j = 0; j < k; ++j) {
    group[j * kGroupColumns] = LoadFloat(column.dtype, column.data, j);
  }
}

void PackColumnBf16(const Column& column, int64_t k, BF16* group) {
  const auto place = [](int64_t j) { return j / 2 * 2 * kGroupColumns + j % 2; };
  if (column.dtype == DType::kBF16) {
    const auto* source = reinterpret_cast<const BF16*>(column.data);
    for (int64_t j = 0; j < k; ++j) group[place(j)] = source[j];
    return;
  }
  for (int64_t j = 0; j < k; ++j) {
    group[place(j)] = ToBF16(LoadFloat(column.dtype, column.data, j));
  }
}

// column_of(i) names the i-th column in packed order.
template <class ColumnOf>
void PackColumns(std::byte* data, bool is_f32, int64_t num_columns, int64_t k, ThreadPool& pool,
                 ColumnOf column_of) {
  const int64_t group_bytes = GroupBytes(is_f32, k);
  const auto pack_group = [&](int64_t g, int) {
    std::byte* group = data + g * group_bytes;
    const int64_t end = std::min(num_columns, (g + 1) * kGroupColumns);
    for (int64_t i = g * kGroupColumns; i < end; ++i) {
      const Column column = column_of(i);
      if (column.data == nullptr) continue;
      const int64_t c = i % kGroupColumns;
      if (is_f32) {
        PackColumnF32(column, k, reinterpret_cast<float*>(group) + c);
      } else {
        PackColumnBf16(column, k, reinterpret_cast<BF16*>(group) + 2 * c);
      }
    }
  };
  pool.Run(NumGroups(num_columns), pack_group);
}

void CheckWeight(const TensorView& w, int64_t k) {
  const bool is_float =
      w.dtype() == DType::kF32 || w.dtype() == DType::kBF16 || w.dtype() == DType::kF16;
  WIDELOAD_CHECK(is_float && w.shape().rank() == 2 && w.dim(1) == k && w.dim(0) > 0 && k > 0,
                 "weight is {} {}; a matrix [n, {}] in F32, BF16 or F16 is expected",
                 DTypeName(w.dtype()), w.shape().ToString(), k);
}

Column ColumnOf(const TensorView& w, int64_t row) {
  return {.dtype = w.dtype(), .data = static_cast<const std::byte*>(w.raw()) + row * w.row_bytes()};
}

}  // namespace

int64_t PackedBytes(KernelSet kernels, int64_t n, int64_t k, MatrixPrecision precision) {
  return NumGroups(n) * GroupBytes(StoresF32(kernels, precision), k);
}

int64_t PackedGateUpBytes(KernelSet kernels, int64_t i, int64_t k) {
  return 2 * PackedBytes(kernels, i, k);
}

int64_t PackedShape::num_bytes() const {
  return gate_up ? PackedGateUpBytes(kernels, n / 2, k) : PackedBytes(kernels, n, k, precision);
}

PackedMatrix::PackedMatrix(const PackedShape& shape, Buffer storage)
    : shape_(shape),
      data_(storage.num_bytes() > 0 ? std::move(storage) : Buffer(shape.num_bytes())) {
  WIDELOAD_CHECK(data_.num_bytes() == shape.num_bytes(), "{} bytes for a matrix of {}",
                 data_.num_bytes(), shape.num_bytes());
}

PackedMatrix PackedMatrix::Pack(KernelSet kernels, std::span<const TensorView> parts,
                                ThreadPool& pool, MatrixPrecision precision, Buffer storage) {
  WIDELOAD_CHECK(!parts.empty(), "a matrix of no parts");
  PackedShape shape{.kernels = kernels, .k = parts[0].dim(1), .precision = precision};
  for (const TensorView& part : parts) {
    CheckWeight(part, shape.k);
    shape.n += part.dim(0);
  }
  PackedMatrix matrix(shape, std::move(storage));
  const auto column_of = [&](int64_t i) {
    size_t part = 0;
    while (i >= parts[part].dim(0)) i -= parts[part++].dim(0);
    return ColumnOf(parts[part], i);
  };
  PackColumns(matrix.data_.data(), StoresF32(kernels, precision), shape.n, shape.k, pool,
              column_of);
  return matrix;
}

PackedMatrix PackedMatrix::PackGateUp(KernelSet kernels, const TensorView& gate,
                                      const TensorView& up, ThreadPool& pool, Buffer storage) {
  CheckWeight(gate, gate.dim(1));
  CheckWeight(up, gate.dim(1));
  WIDELOAD_CHECK(gate.dim(0) == up.dim(0), "gate has {} rows, up {}", gate.dim(0), up.dim(0));
  const PackedShape shape{
      .kernels = kernels, .n = 2 * gate.dim(0), .k = gate.dim(1), .gate_up = true};
  PackedMatrix matrix(shape, std::move(storage));
  // Group 2 g holds gate's columns 16 g and on, group 2 g + 1 up's.
  const auto column_of = [&](int64_t i) -> Column {
    const int64_t row = i / (2 * kGroupColumns) * kGroupColumns + i % kGroupColumns;
    if (row >= gate.dim(0)) return {};
    return ColumnOf(i / kGroupColumns % 2 == 0 ? gate : up, row);
  };
  PackColumns(matrix.data_.data(), StoresF32(kernels, shape.precision),
              2 * RoundUp(gate.dim(0), kGroupColumns), shape.k, pool, column_of);
  return matrix;
}

PackedMatrix PackedMatrix::Over(const PackedShape& shape, Buffer packed) {
  WIDELOAD_CHECK(packed.num_bytes() > 0, "a matrix over no memory");
  return PackedMatrix(shape, std::move(packed));
}

void PackedMatrix::CopyFrom(const PackedMatrix& other) {
  WIDELOAD_CHECK(shape_ == other.shape_, "a packed [{}, {}] for {} takes no [{}, {}] for {}", n(),
                 k(), KernelSetName(kernels()), other.n(), other.k(),
                 KernelSetName(other.kernels()));
  if (num_bytes() > 0) std::memcpy(data_.data(), other.data(), static_cast<size_t>(num_bytes()));
}

}  // namespace wideload::compute
