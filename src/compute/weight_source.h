// A weight as a checkpoint stores it, seen as [n (output features), k (input features)] whatever
// its orientation: part of its rows, every other row, or transposed. A view; the tensors must
// outlive it. Plain values.
#pragma once

#include <cstdint>
#include <string>

#include "compute/weight_format.h"
#include "tensor/tensor_view.h"

namespace wideload::compute {

class WeightSource {
 public:
  // Each throws Error(kInvalid or kUnsupported) naming `name`, what was found and what is allowed.
  // `name` is that of the tensor, for messages.

  // w [n, k] in F32, BF16 or F16.
  static WeightSource Plain(std::string name, const TensorView& w);
  // w [n, k] F8_E4M3; scales [ceil(n / 128), ceil(k / 128)] F32, BF16 or F16, a value is w * scale
  // ("weight_scale_inv").
  static WeightSource Fp8(std::string name, const TensorView& w, const TensorView& scales);
  // packed [n, k / 8] I32, bits 4 i .. 4 i + 3 of word j hold value 8 j + i plus 8; scales [n, k /
  // 32] BF16, F16 or F32 (rounded to bf16). k must be a multiple of 32.
  static WeightSource Int4(std::string name, const TensorView& packed, const TensorView& scales);
  // blocks [n, k / 32, 16] U8 (or [n, k / 2]), the low half of a byte first; scales [n, k / 32] U8,
  // E8M0.
  static WeightSource Mxfp4(std::string name, const TensorView& blocks, const TensorView& scales);

  // The same with an addend for each output feature: bias [n] F32, BF16 or F16, counted as n() is
  // now.
  WeightSource WithBias(const TensorView& bias) const;
  // Output features begin, begin + step, ...: `count` of them (GPT-OSS: gate is every other row
  // from 0, up from 1).
  WeightSource Rows(int64_t begin, int64_t count, int64_t step = 1) const;
  // [k, n]: what is stored input-major is Plain(...).Transposed(). Of a weight without bias.
  WeightSource Transposed() const;

  int64_t n() const { return n_.count; }
  int64_t k() const { return k_.count; }
  // The stored format; kF32 or kBF16 for plain weights (F16 counts as kF32).
  WeightFormat format() const { return format_; }
  const std::string& name() const { return name_; }
  bool has_bias() const { return !bias_.empty(); }

  // Value (i, j) of [n, k] in fp32: for scaled formats value * scale, rounded once.
  float At(int64_t i, int64_t j) const;
  // 0 without a bias.
  float Bias(int64_t i) const;

  // Of scaled formats whose k lies as stored: the bits of value (i, j) (8 or 4), and its scale (of
  // kMxfp4: the exponent's byte).
  uint8_t Code(int64_t i, int64_t j) const;
  float Scale(int64_t i, int64_t j) const;
  uint8_t ScaleByte(int64_t i, int64_t j) const;
  // Throws kUnsupported unless codes can be packed as they are: not transposed, and k begins where
  // a scale's block does.
  void CheckKeepsCodes() const;
  // Throws kCorrupt naming a scale that is NaN, infinite, or so once it is rounded to what is kept;
  // looks at all scales of the rows that are wanted.
  void CheckFiniteScales() const;
  int64_t scale_bytes() const { return scales_.num_bytes(); }
  // Of plain weights: value (i, 0), and how many elements of dtype() further the next k's is.
  struct Run {
    const std::byte* data = nullptr;
    int64_t stride = 1;
  };
  Run PlainRow(int64_t i) const;
  DType dtype() const { return values_.dtype(); }
  // Of scaled weights that keep their codes: the bytes of the codes (i, 0 .. k - 1).
  const std::byte* CodeRow(int64_t i) const;

 private:
  struct Axis {
    int64_t count = 0;
    int64_t first = 0;
    int64_t step = 1;
    int64_t At(int64_t i) const { return first + i * step; }
  };
  struct Place {
    int64_t row = 0;
    int64_t column = 0;
  };
  Place PlaceOf(int64_t i, int64_t j) const;

  std::string name_;
  WeightFormat format_ = WeightFormat::kF32;
  TensorView values_;  // [stored rows, ...]
  TensorView scales_;
  TensorView bias_;  // [stored rows of n]
  Axis n_;
  Axis k_;
  bool transposed_ = false;  // n counts stored columns
};

}  // namespace wideload::compute
