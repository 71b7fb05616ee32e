#include "compute/weight_source.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "compute/kernels.h"

namespace wideload::compute {
namespace {

bool IsPlainFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

void CheckScales(const std::string& name, const TensorView& scales, const Shape& shape) {
  if (IsPlainFloat(scales.dtype()) && scales.shape() == shape) return;
  Throw(ErrorKind::kInvalid, "scales of {} are {} {}; {} in F32, BF16 or F16 is expected", name,
        DTypeName(scales.dtype()), scales.shape().ToString(), shape.ToString());
}

// Element of a view whose rows of dimension 0 may be strided.
float FloatAt(const TensorView& view, int64_t row, int64_t column) {
  return LoadFloat(view.dtype(), view.raw(), row * view.row_stride() + column);
}

uint8_t ByteAt(const TensorView& view, int64_t row, int64_t column) {
  return static_cast<const uint8_t*>(view.raw())[row * view.row_stride() + column];
}

// The first scale of a row that is no finite number, or -1. `as_bf16`: once it is rounded to that.
int64_t FirstBadScale(const TensorView& scales, int64_t row, bool as_bf16) {
  const int64_t count = scales.dim(1);
  if (scales.dtype() == DType::kU8) {
    constexpr uint8_t kNan = 0xff;
    const auto* bytes = static_cast<const uint8_t*>(scales.raw()) + row * scales.row_stride();
    const auto* found = std::find(bytes, bytes + count, kNan);
    return found == bytes + count ? -1 : found - bytes;
  }
  for (int64_t i = 0; i < count; ++i) {
    const float scale = FloatAt(scales, row, i);
    if (!std::isfinite(as_bf16 ? ToFloat(ToBF16(scale)) : scale)) return i;
  }
  return -1;
}

// The values of e2m1: 1 sign, 2 exponent, 1 mantissa bit.
constexpr std::array<float, 16> kE2M1 = {0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                                         -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};

}  // namespace

WeightSource WeightSource::Plain(std::string name, const TensorView& w) {
  if (!IsPlainFloat(w.dtype()) || w.shape().rank() != 2) {
    Throw(ErrorKind::kInvalid, "{} is {} {}; a matrix in F32, BF16 or F16 is expected", name,
          DTypeName(w.dtype()), w.shape().ToString());
  }
  WeightSource source;
  source.name_ = std::move(name);
  source.format_ = w.dtype() == DType::kBF16 ? WeightFormat::kBF16 : WeightFormat::kF32;
  source.values_ = w;
  source.n_.count = w.dim(0);
  source.k_.count = w.dim(1);
  return source;
}

WeightSource WeightSource::Fp8(std::string name, const TensorView& w, const TensorView& scales) {
  if (w.dtype() != DType::kF8E4M3 || w.shape().rank() != 2) {
    Throw(ErrorKind::kInvalid, "{} is {} {}; a matrix in F8_E4M3 is expected", name,
          DTypeName(w.dtype()), w.shape().ToString());
  }
  CheckScales(name, scales, {CeilDiv(w.dim(0), kFp8BlockN), CeilDiv(w.dim(1), kFp8BlockK)});
  WeightSource source;
  source.name_ = std::move(name);
  source.format_ = WeightFormat::kFp8;
  source.values_ = w;
  source.scales_ = scales;
  source.n_.count = w.dim(0);
  source.k_.count = w.dim(1);
  return source;
}

WeightSource WeightSource::Int4(std::string name, const TensorView& packed,
                                const TensorView& scales) {
  if (packed.dtype() != DType::kI32 || packed.shape().rank() != 2 || packed.dim(1) % 4 != 0) {
    Throw(ErrorKind::kUnsupported,
          "{} is {} {}; [n, k / 8] in I32 with k a multiple of the 32 of a group is expected", name,
          DTypeName(packed.dtype()), packed.shape().ToString());
  }
  CheckScales(name, scales, {packed.dim(0), packed.dim(1) / 4});
  WeightSource source;
  source.name_ = std::move(name);
  source.format_ = WeightFormat::kInt4;
  source.values_ = packed;
  source.scales_ = scales;
  source.n_.count = packed.dim(0);
  source.k_.count = packed.dim(1) * 8;
  return source;
}

WeightSource WeightSource::Mxfp4(std::string name, const TensorView& blocks,
                                 const TensorView& scales) {
  const Shape& shape = blocks.shape();
  const bool fits = (shape.rank() == 3 && shape[2] == 16) || (shape.rank() == 2);
  const int64_t half_k = !fits ? 0 : shape.rank() == 3 ? shape[1] * 16 : shape[1];
  if (blocks.dtype() != DType::kU8 || !fits || half_k % 16 != 0) {
    Throw(ErrorKind::kUnsupported,
          "{} is {} {}; [n, k / 32, 16] in U8 with k a multiple of the 32 of a block is expected",
          name, DTypeName(blocks.dtype()), shape.ToString());
  }
  if (scales.dtype() != DType::kU8 || !(scales.shape() == Shape{shape[0], half_k / 16})) {
    Throw(ErrorKind::kInvalid, "scales of {} are {} {}; [{}, {}] in U8 is expected", name,
          DTypeName(scales.dtype()), scales.shape().ToString(), shape[0], half_k / 16);
  }
  WeightSource source;
  source.name_ = std::move(name);
  source.format_ = WeightFormat::kMxfp4;
  source.values_ = TensorView(DType::kU8, {shape[0], half_k}, blocks.raw(), blocks.row_stride());
  source.scales_ = scales;
  source.n_.count = shape[0];
  source.k_.count = half_k * 2;
  return source;
}

WeightSource WeightSource::WithBias(const TensorView& bias) const {
  if (!IsPlainFloat(bias.dtype()) || !(bias.shape() == Shape{n()})) {
    Throw(ErrorKind::kInvalid, "bias of {} is {} {}; [{}] in F32, BF16 or F16 is expected", name_,
          DTypeName(bias.dtype()), bias.shape().ToString(), n());
  }
  WIDELOAD_CHECK(n_.first == 0 && n_.step == 1, "bias of {}: given after its rows were chosen",
                 name_);
  WeightSource source = *this;
  source.bias_ = bias;
  return source;
}

WeightSource WeightSource::Rows(int64_t begin, int64_t count, int64_t step) const {
  WIDELOAD_CHECK(
      begin >= 0 && count >= 0 && step >= 1 && (count == 0 || begin + (count - 1) * step < n()),
      "{}: {} rows from {} by {} of {}", name_, count, begin, step, n());
  WeightSource source = *this;
  source.n_ = {.count = count, .first = n_.At(begin), .step = n_.step * step};
  return source;
}

WeightSource WeightSource::Transposed() const {
  WIDELOAD_CHECK(!has_bias(), "{}: transposed with a bias", name_);
  WeightSource source = *this;
  std::swap(source.n_, source.k_);
  source.transposed_ = !transposed_;
  return source;
}

WeightSource::Place WeightSource::PlaceOf(int64_t i, int64_t j) const {
  const int64_t a = n_.At(i);
  const int64_t b = k_.At(j);
  return transposed_ ? Place{.row = b, .column = a} : Place{.row = a, .column = b};
}

float WeightSource::At(int64_t i, int64_t j) const {
  const Place at = PlaceOf(i, j);
  switch (format_) {
    case WeightFormat::kF32:
    case WeightFormat::kBF16:
      return FloatAt(values_, at.row, at.column);
    case WeightFormat::kFp8:
      return FloatAt(values_, at.row, at.column) * Scale(i, j);
    case WeightFormat::kInt4:
      return static_cast<float>(int{Code(i, j)} - 8) * Scale(i, j);
    case WeightFormat::kMxfp4:
      break;
  }
  return std::ldexp(kE2M1[Code(i, j)], int{ScaleByte(i, j)} - 127);
}

float WeightSource::Bias(int64_t i) const {
  return has_bias() ? LoadFloat(bias_.dtype(), bias_.raw(), n_.At(i)) : 0.0F;
}

uint8_t WeightSource::Code(int64_t i, int64_t j) const {
  const Place at = PlaceOf(i, j);
  if (format_ == WeightFormat::kFp8) return ByteAt(values_, at.row, at.column);
  const int64_t row_bytes = values_.row_bytes();
  const uint8_t byte = static_cast<const uint8_t*>(
      values_.raw())[at.row * row_bytes + at.column / 2];  // little-endian words of 8 values
  return at.column % 2 == 0 ? byte & 15U : byte >> 4U;
}

float WeightSource::Scale(int64_t i, int64_t j) const {
  const Place at = PlaceOf(i, j);
  if (format_ == WeightFormat::kFp8) {
    return FloatAt(scales_, at.row / kFp8BlockN, at.column / kFp8BlockK);
  }
  return ToFloat(ToBF16(FloatAt(scales_, at.row, at.column / kFourBitBlockK)));
}

uint8_t WeightSource::ScaleByte(int64_t i, int64_t j) const {
  const Place at = PlaceOf(i, j);
  return ByteAt(scales_, at.row, at.column / kFourBitBlockK);
}

void WeightSource::CheckKeepsCodes() const {
  const int64_t block = ScaleBlockK(format_);
  const bool whole_blocks = format_ == WeightFormat::kFp8 || k() % block == 0;
  if (!transposed_ && k_.step == 1 && k_.first % block == 0 && whole_blocks) return;
  Throw(ErrorKind::kUnsupported,
        "{}: {} of its input features from {} by {}{} are wanted as {}, whose scales hold for {} "
        "of them each; only whole blocks in stored order are supported",
        name_, k(), k_.first, k_.step, transposed_ ? ", transposed," : "",
        WeightFormatName(format_), block);
}

void WeightSource::CheckFiniteScales() const {
  if (!IsBlockScaled(format_) || n() == 0) return;
  const int64_t rows_each = format_ == WeightFormat::kFp8 ? kFp8BlockN : 1;
  const Axis& rows = transposed_ ? k_ : n_;
  const int64_t end = rows.At(rows.count - 1) / rows_each;
  for (int64_t row = rows.At(0) / rows_each; row <= end; ++row) {
    const int64_t found = FirstBadScale(scales_, row, format_ == WeightFormat::kInt4);
    if (found < 0) continue;
    Throw(ErrorKind::kCorrupt,
          "{}: the scale of output feature {}, input features from {} on is {}; scales must be "
          "finite numbers{}",
          name_, row * rows_each, found * ScaleBlockK(format_),
          format_ == WeightFormat::kMxfp4 ? NAN : FloatAt(scales_, row, found),
          format_ == WeightFormat::kInt4 ? " of bf16" : "");
  }
}

WeightSource::Run WeightSource::PlainRow(int64_t i) const {
  const Place at = PlaceOf(i, 0);
  return {.data = static_cast<const std::byte*>(values_.raw()) + at.row * values_.row_bytes() +
                  at.column * DTypeBytes(values_.dtype()),
          .stride = k_.step * (transposed_ ? values_.row_stride() : 1)};
}

const std::byte* WeightSource::CodeRow(int64_t i) const {
  const Place at = PlaceOf(i, 0);
  const int64_t codes_per_byte = format_ == WeightFormat::kFp8 ? 1 : 2;
  return static_cast<const std::byte*>(values_.raw()) + at.row * values_.row_bytes() +
         at.column / codes_per_byte;
}

}  // namespace wideload::compute
