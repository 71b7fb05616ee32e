#include "compute/matrix.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "compute/kernels.h"
#include "compute/pack_column.h"

namespace wideload::compute {
namespace {

int64_t NumGroups(int64_t n) { return (n + kGroupColumns - 1) / kGroupColumns; }

// Packed columns, padding included: gate and up are padded each.
int64_t NumPackedColumns(const PackedShape& shape) {
  return (shape.gate_up ? 2 * NumGroups(shape.n / 2) : NumGroups(shape.n)) * kGroupColumns;
}

// An output feature of one of the parts; null: padding.
struct Column {
  const WeightSource* source = nullptr;
  int64_t row = 0;
};

// Where the columns of a packed matrix come from.
class ColumnMap {
 public:
  ColumnMap(const PackedShape& shape, std::span<const WeightSource> parts)
      : gate_up_(shape.gate_up), parts_(parts) {}

  Column Of(int64_t i) const {
    if (gate_up_) {
      // Group 2 g holds gate's columns 16 g and on, group 2 g + 1 up's.
      const int64_t row = i / (2 * kGroupColumns) * kGroupColumns + i % kGroupColumns;
      const WeightSource& part = parts_[static_cast<size_t>(i / kGroupColumns % 2)];
      return row < part.n() ? Column{.source = &part, .row = row} : Column{};
    }
    for (const WeightSource& part : parts_) {
      if (i < part.n()) return {.source = &part, .row = i};
      i -= part.n();
    }
    return {};
  }

 private:
  bool gate_up_;
  std::span<const WeightSource> parts_;
};

// The rows of a group's columns if each is bf16 that is packed as it is.
std::optional<Bf16Rows> PlainRows(const PackedShape& shape, const ColumnMap& map, int64_t group) {
  if (shape.format != WeightFormat::kBF16) return std::nullopt;
  Bf16Rows rows = {};
  for (int64_t c = 0; c < kGroupColumns; ++c) {
    const Column column = map.Of(group * kGroupColumns + c);
    if (column.source == nullptr) continue;
    if (column.source->format() != WeightFormat::kBF16) return std::nullopt;
    const WeightSource::Run run = column.source->PlainRow(column.row);
    if (run.stride != 1) return std::nullopt;
    rows[static_cast<size_t>(c)] = run.data;
  }
  return rows;
}

void CheckParts(const PackedShape& shape, std::span<const WeightSource> parts) {
  int64_t n = 0;
  for (const WeightSource& part : parts) {
    WIDELOAD_CHECK(part.k() == shape.k && part.n() > 0 && part.k() > 0,
                   "{}: [{}, {}] for a matrix of k {}", part.name(), part.n(), part.k(), shape.k);
    WIDELOAD_CHECK(!part.has_bias() || shape.bias, "{}: its bias has no place", part.name());
    n += part.n();
    if (!IsBlockScaled(shape.format)) continue;
    WIDELOAD_CHECK(part.format() == shape.format, "{}: {} cannot be packed as {}", part.name(),
                   WeightFormatName(part.format()), WeightFormatName(shape.format));
    part.CheckKeepsCodes();
  }
  WIDELOAD_CHECK(n == shape.n, "parts of {} columns for a matrix of {}", n, shape.n);
  WIDELOAD_CHECK(!shape.gate_up || (parts.size() == 2 && parts[0].n() == parts[1].n()),
                 "gate and up are {} parts of {} columns", parts.size(), n);
}

}  // namespace

int64_t PackedShape::num_bytes() const {
  const int64_t columns = NumPackedColumns(*this);
  return columns / kGroupColumns * GroupBytes(format, k) +
         (bias ? columns * DTypeBytes(DType::kF32) : 0);
}

PackedMatrix::PackedMatrix(const PackedShape& shape, Buffer storage)
    : shape_(shape),
      data_(storage.num_bytes() > 0 ? std::move(storage) : Buffer(shape.num_bytes())) {
  WIDELOAD_CHECK(data_.num_bytes() == shape.num_bytes(), "{} bytes for a matrix of {}",
                 data_.num_bytes(), shape.num_bytes());
}

const float* PackedMatrix::bias() const {
  if (!shape_.bias) return nullptr;
  return reinterpret_cast<const float*>(data_.data() + data_.num_bytes()) -
         NumPackedColumns(shape_);
}

PackedMatrix PackedMatrix::Pack(const PackedShape& shape, std::span<const WeightSource> parts,
                                ThreadPool& pool, Buffer storage) {
  CheckParts(shape, parts);
  PackedMatrix matrix(shape, std::move(storage));
  const ColumnMap map(shape, parts);
  const int64_t group_bytes = GroupBytes(shape.format, shape.k);
  auto* const bias = const_cast<float*>(matrix.bias());
  const int64_t num_groups = NumPackedColumns(shape) / kGroupColumns;
  std::vector<Refusal> refusals(static_cast<size_t>(num_groups));
  pool.Run(num_groups, [&](int64_t g, int) {
    std::byte* const group = matrix.data_.data() + g * group_bytes;
    const std::optional<Bf16Rows> rows = PlainRows(shape, map, g);
    if (rows) PackBf16Group(*rows, shape.k, group);
    for (int64_t c = 0; c < kGroupColumns; ++c) {
      const Column column = map.Of(g * kGroupColumns + c);
      if (column.source == nullptr) continue;
      Refusal refusal;
      if (!rows) refusal = PackColumn(shape.format, *column.source, column.row, c, group);
      if (refusal.is_set()) refusals[static_cast<size_t>(g)] = refusal;
      if (bias != nullptr) bias[g * kGroupColumns + c] = column.source->Bias(column.row);
    }
  });
  for (const Refusal& refusal : refusals) refusal.ThrowIfSet();
  return matrix;
}

PackedMatrix PackedMatrix::Over(const PackedShape& shape, Buffer packed) {
  WIDELOAD_CHECK(packed.num_bytes() > 0, "a matrix over no memory");
  return PackedMatrix(shape, std::move(packed));
}

PackedShape ExpertShape::gate_up() const {
  return {.kernels = kernels,
          .format = format,
          .n = 2 * own_inner(),
          .k = hidden,
          .gate_up = true,
          .bias = bias};
}

PackedShape ExpertShape::down() const {
  return {.kernels = kernels, .format = format, .n = own_hidden(), .k = inner, .bias = bias};
}

int64_t ExpertShape::num_bytes() const { return gate_up().num_bytes() + down().num_bytes(); }

ExpertWeights::ExpertWeights(const ExpertShape& shape, Buffer storage)
    : shape_(shape),
      block_(storage.num_bytes() > 0 ? std::move(storage) : Buffer(shape.num_bytes())) {
  WIDELOAD_CHECK(block_.num_bytes() == shape.num_bytes(), "{} bytes for an expert of {}",
                 block_.num_bytes(), shape.num_bytes());
}

Buffer ExpertWeights::GateUpStorage() const {
  return Buffer::Over(bytes().first(static_cast<size_t>(shape_.gate_up().num_bytes())));
}

Buffer ExpertWeights::DownStorage() const {
  return Buffer::Over(bytes().last(static_cast<size_t>(shape_.down().num_bytes())));
}

ExpertWeights ExpertWeights::Pack(const ExpertShape& shape, const WeightSource& gate,
                                  const WeightSource& up, const WeightSource& down,
                                  ThreadPool& pool, Buffer storage) {
  ExpertWeights weights(shape, std::move(storage));
  const WeightSource gate_and_up[] = {gate, up};
  weights.gate_up_ =
      PackedMatrix::Pack(shape.gate_up(), gate_and_up, pool, weights.GateUpStorage());
  weights.down_ = PackedMatrix::Pack(shape.down(), {&down, 1}, pool, weights.DownStorage());
  return weights;
}

ExpertWeights ExpertWeights::Over(const ExpertShape& shape, Buffer packed) {
  WIDELOAD_CHECK(packed.num_bytes() > 0, "an expert over no memory");
  ExpertWeights weights(shape, std::move(packed));
  weights.gate_up_ = PackedMatrix::Over(shape.gate_up(), weights.GateUpStorage());
  weights.down_ = PackedMatrix::Over(shape.down(), weights.DownStorage());
  return weights;
}

}  // namespace wideload::compute
