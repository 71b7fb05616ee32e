#include "compute/pack_column.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "compute/kernels.h"

namespace wideload::compute {
namespace {

// Element (k, c) of lines that hold a pair of k for each column.
int64_t PairPlace(int64_t k, int64_t c) { return k / 2 * 2 * kGroupColumns + 2 * c + k % 2; }

// put(j, value) for each k of an output feature, values in fp32.
template <class Put>
void ForEachValue(const WeightSource& source, int64_t row, Put put) {
  const int64_t k = source.k();
  if (IsBlockScaled(source.format())) {
    for (int64_t j = 0; j < k; ++j) put(j, source.At(row, j));
    return;
  }
  const WeightSource::Run run = source.PlainRow(row);
  if (source.dtype() == DType::kBF16) {
    const auto* from = reinterpret_cast<const BF16*>(run.data);
    for (int64_t j = 0; j < k; ++j) put(j, ToFloat(from[j * run.stride]));
    return;
  }
  for (int64_t j = 0; j < k; ++j) put(j, LoadFloat(source.dtype(), run.data, j * run.stride));
}

void PackF32(const WeightSource& source, int64_t row, int64_t c, std::byte* group) {
  float* out = reinterpret_cast<float*>(group) + c;
  ForEachValue(source, row, [out](int64_t j, float value) { out[j * kGroupColumns] = value; });
}

void PackBf16(const WeightSource& source, int64_t row, int64_t c, std::byte* group) {
  auto* out = reinterpret_cast<BF16*>(group);
  if (source.format() == WeightFormat::kBF16) {  // as it is, NaN included
    const WeightSource::Run run = source.PlainRow(row);
    const auto* from = reinterpret_cast<const BF16*>(run.data);
    for (int64_t j = 0; j < source.k(); ++j) out[PairPlace(j, c)] = from[j * run.stride];
    return;
  }
  ForEachValue(source, row,
               [out, c](int64_t j, float value) { out[PairPlace(j, c)] = ToBF16(value); });
}

Refusal PackFp8(const WeightSource& source, int64_t row, int64_t c, std::byte* group) {
  constexpr uint8_t kNan = 0x7f;  // below the sign
  const int64_t k = source.k();
  const auto* codes = reinterpret_cast<const uint8_t*>(source.CodeRow(row));
  Refusal refusal;
  for (int64_t begin = 0; begin < k; begin += kFp8BlockK) {
    reinterpret_cast<float*>(group)[c] = source.Scale(row, begin);
    auto* out = reinterpret_cast<uint8_t*>(group + kScaleLineBytes);
    const int64_t count = std::min(kFp8BlockK, k - begin);
    for (int64_t j = 0; j < count; ++j) {
      const uint8_t code = codes[begin + j];
      out[PairPlace(j, c)] = code;
      if ((code & kNan) == kNan) {
        refusal = {.source = &source, .format = WeightFormat::kFp8, .row = row, .k = begin + j};
      }
    }
    group += kScaleLineBytes + kFp8BlockK * kGroupColumns;
  }
  return refusal;
}

// The 32 codes of a block of column c: [4][16] words of 8. Returns all their bits that `mask` has.
uint32_t PackNibbles(const std::byte* codes, int64_t c, uint32_t mask, std::byte* block) {
  auto* words = reinterpret_cast<uint32_t*>(block);
  uint32_t seen = 0;
  for (int64_t w = 0; w < kFourBitBlockK / 8; ++w) {
    uint32_t word = 0;  // little-endian in the checkpoint, too
    std::memcpy(&word, codes + w * 4, sizeof(word));
    words[w * kGroupColumns + c] = word;
    seen |= word & mask;
  }
  return seen;
}

void PackInt4(const WeightSource& source, int64_t row, int64_t c, std::byte* group) {
  for (int64_t begin = 0; begin < source.k(); begin += kInt4ScaleLineK) {
    auto* scales = reinterpret_cast<BF16*>(group);
    group += kScaleLineBytes;
    const int64_t end = std::min(source.k(), begin + kInt4ScaleLineK);
    for (int64_t j = begin; j < end; j += kFourBitBlockK) {
      scales[(j - begin) / kFourBitBlockK * kGroupColumns + c] = ToBF16(source.Scale(row, j));
      PackNibbles(source.CodeRow(row) + j / 2, c, 0, group);
      group += kFourBitBlockBytes;
    }
  }
}

Refusal PackMxfp4(const WeightSource& source, int64_t row, int64_t c, std::byte* group) {
  // 0.5 * 2^(2 - 127) is the smallest normal bf16, 6 * 2^(252 - 127) is below the largest.
  constexpr uint8_t kLeast = 2, kMost = 252, kOne = 127;
  Refusal refusal;
  for (int64_t begin = 0; begin < source.k(); begin += kMxfp4ScaleLineK) {
    auto* scales = reinterpret_cast<uint8_t*>(group);
    group += kScaleLineBytes;
    const int64_t end = std::min(source.k(), begin + kMxfp4ScaleLineK);
    for (int64_t j = begin; j < end; j += kFourBitBlockK) {
      uint8_t scale = source.ScaleByte(row, j);
      // All but the signs.
      const bool any = PackNibbles(source.CodeRow(row) + j / 2, c, 0x77777777U, group) != 0;
      if (!any) scale = kOne;  // a block of zeros, whatever scale it was given
      if (scale < kLeast || scale > kMost) {
        refusal = {.source = &source, .format = WeightFormat::kMxfp4, .row = row, .k = j};
      }
      scales[(j - begin) / kFourBitBlockK * kGroupColumns + c] = scale;
      group += kFourBitBlockBytes;
    }
  }
  return refusal;
}

}  // namespace

void Refusal::ThrowIfSet() const {
  if (!is_set()) return;
  if (format == WeightFormat::kFp8) {
    Throw(ErrorKind::kCorrupt, "{}: the value of output feature {}, input feature {} is NaN",
          source->name(), row, k);
  }
  Throw(ErrorKind::kUnsupported,
        "{}: the scale of output feature {}, input features {} to {} is 2^{}; 2^-125 to 2^125, "
        "with which all values are normal bf16 numbers, are supported",
        source->name(), row, k, k + kFourBitBlockK - 1, int{source->ScaleByte(row, k)} - 127);
}

Refusal PackColumn(WeightFormat format, const WeightSource& source, int64_t row, int64_t c,
                   std::byte* group) {
  switch (format) {
    case WeightFormat::kF32:
      PackF32(source, row, c, group);
      break;
    case WeightFormat::kBF16:
      PackBf16(source, row, c, group);
      break;
    case WeightFormat::kFp8:
      return PackFp8(source, row, c, group);
    case WeightFormat::kInt4:
      PackInt4(source, row, c, group);
      break;
    case WeightFormat::kMxfp4:
      return PackMxfp4(source, row, c, group);
  }
  return {};
}

void PackBf16Group(const Bf16Rows& rows, int64_t k, std::byte* group) {
  constexpr int64_t kPairBytes = 4;
  for (int64_t j = 0; j + 2 <= k; j += 2) {
    for (const std::byte* row : rows) {
      if (row != nullptr) std::memcpy(group, row + 2 * j, kPairBytes);
      group += kPairBytes;
    }
  }
  if (k % 2 == 0) return;
  for (const std::byte* row : rows) {
    if (row != nullptr) std::memcpy(group, row + 2 * (k - 1), 2);
    group += kPairBytes;
  }
}

}  // namespace wideload::compute
