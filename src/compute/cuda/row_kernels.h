// Kernels that treat every row alike: the x of a grid is the row, its y a piece of the row. What is
// done to an element does not depend on how many a thread takes at once: 16 bytes of fp32 where
// addresses allow it, so that the threads a multiprocessor holds have 32 KiB in flight, else one.
#pragma once

#include "compute/cuda/kernels.h"
#include "device/kernel.h"

namespace wideload::compute::cuda {

WIDELOAD_DEVICE const std::byte* RowOf(const InRows& x, int64_t row) {
  return x.pointers != nullptr ? x.pointers[row] : x.base + row * x.stride_bytes;
}
WIDELOAD_DEVICE std::byte* RowOf(const OutRows& y, int64_t row) {
  return y.pointers != nullptr ? y.pointers[row] : y.base + row * y.stride_bytes;
}

// Element i of a row = value, rounded to bf16 unless the row is fp32.
WIDELOAD_DEVICE void StoreElement(std::byte* row, bool is_f32, int64_t i, float value) {
  if (is_f32)
    reinterpret_cast<float*>(row)[i] = value;
  else
    reinterpret_cast<uint16_t*>(row)[i] = device::ToBf16(value);
}

// A half as fp32. The bits of HalfToFloat in tensor/dtype.h.
WIDELOAD_DEVICE float FromF16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 31U;
  const uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 31) return device::FloatOfBits(sign | 0x7f800000U | (mantissa << 13));
  if (exponent != 0)
    return device::FloatOfBits(sign | ((exponent + 112U) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
  return sign != 0 ? -magnitude : magnitude;
}

// kCount numbers that are loaded or stored at once; their address is a multiple of their size.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];
};

// kCount elements of a row from element i on.
template <int kCount>
WIDELOAD_DEVICE Pack<float, kCount> LoadElements(const std::byte* row, TableFormat format,
                                                 int64_t i) {
  if (format == TableFormat::kF32)
    return device::Load<Pack<float, kCount>>(row + i * int64_t{sizeof(float)});
  const auto bits = device::Load<Pack<uint16_t, kCount>>(row + i * int64_t{sizeof(uint16_t)});
  Pack<float, kCount> elements;
  for (int j = 0; j < kCount; ++j) {
    elements.values[j] =
        format == TableFormat::kBf16 ? device::FromBf16(bits.values[j]) : FromF16(bits.values[j]);
  }
  return elements;
}

// The same elements of a row = these, rounded to bf16 unless the row is fp32.
template <int kCount>
WIDELOAD_DEVICE void StoreElements(std::byte* row, bool is_f32, int64_t i,
                                   const Pack<float, kCount>& elements) {
  if (is_f32) {
    device::Store(row + i * int64_t{sizeof(float)}, elements);
    return;
  }
  Pack<uint16_t, kCount> bits;
  for (int j = 0; j < kCount; ++j) bits.values[j] = device::ToBf16(elements.values[j]);
  device::Store(row + i * int64_t{sizeof(uint16_t)}, bits);
}

// How many elements a thread takes at once where it can.
inline constexpr int kPackElements = 4;

// Whether packs of kPackElements of element_bytes may begin at any multiple of kPackElements of any
// row.
inline bool HasPacks(const void* base, int64_t stride_bytes, int64_t element_bytes) {
  const int64_t pack_bytes = kPackElements * element_bytes;
  return reinterpret_cast<intptr_t>(base) % pack_bytes == 0 && stride_bytes % pack_bytes == 0;
}
inline bool HasPacks(const InRows& x, int64_t element_bytes) {
  return x.pointers == nullptr && HasPacks(x.base, x.stride_bytes, element_bytes);
}
inline bool HasPacks(const OutRows& y, int64_t element_bytes) {
  return y.pointers == nullptr && HasPacks(y.base, y.stride_bytes, element_bytes);
}

inline constexpr int kRowThreads = 128;

// One thread for each of the `items` of each row; the item of a thread is RowItem().
inline device::Grid RowGrid(int64_t rows, int64_t items) {
  return {
      .blocks = rows, .blocks_y = (items + kRowThreads - 1) / kRowThreads, .threads = kRowThreads};
}
WIDELOAD_DEVICE int64_t RowItem() { return device::BlockY() * kRowThreads + device::Thread(); }

template <int kCount>
struct EmbedKernel {
  using Args = EmbedArgs;
  static constexpr int kThreads = kRowThreads;
  static WIDELOAD_DEVICE void Run(const Args& args) {
    const int64_t i = RowItem() * kCount;
    if (i >= args.width) return;
    const int64_t row = device::Block();
    const std::byte* const from = args.table + args.ids[row] * args.row_bytes;
    StoreElements(RowOf(args.y, row), true, i, LoadElements<kCount>(from, args.format, i));
  }
};

inline void Embed(device::Stream& stream, const EmbedArgs& args, int64_t rows) {
  if (rows == 0 || args.width == 0) return;
  const int64_t element_bytes = args.format == TableFormat::kF32 ? 4 : 2;
  if (args.width % kPackElements == 0 && HasPacks(args.table, args.row_bytes, element_bytes) &&
      HasPacks(args.y, sizeof(float))) {
    const device::Grid grid = RowGrid(rows, args.width / kPackElements);
    return device::Launch<EmbedKernel<kPackElements>>(stream, grid, args);
  }
  device::Launch<EmbedKernel<1>>(stream, RowGrid(rows, args.width), args);
}

template <int kCount>
struct ConvertHeadsKernel {
  using Args = ConvertHeadsArgs;
  static constexpr int kThreads = kRowThreads;
  static WIDELOAD_DEVICE void Run(const Args& args) {
    // A row has fewer than 2^31 elements, and 32 bits divide faster.
    const auto item = static_cast<int32_t>(RowItem());
    const auto per_head = static_cast<int32_t>(args.width / kCount);
    const int32_t head = item / per_head;
    if (head >= args.heads) return;
    const int64_t i = int64_t{item % per_head} * kCount;
    const int64_t row = device::Block();
    Pack<float, kCount> x =
        LoadElements<kCount>(RowOf(args.x, row), TableFormat::kF32, head * args.x_stride + i);
    if (args.row_scales != nullptr) {
      for (float& value : x.values) value *= args.row_scales[row];
    }
    StoreElements(RowOf(args.y, row), args.y_is_f32, head * args.y_stride + i, x);
  }
};

inline void ConvertHeads(device::Stream& stream, const ConvertHeadsArgs& args, int64_t rows) {
  const int64_t elements = args.heads * args.width;
  if (rows == 0 || elements == 0) return;
  const bool has_whole_packs = args.width % kPackElements == 0 &&
                               args.x_stride % kPackElements == 0 &&
                               args.y_stride % kPackElements == 0;
  if (has_whole_packs && HasPacks(args.x, sizeof(float)) &&
      HasPacks(args.y, args.y_is_f32 ? sizeof(float) : sizeof(uint16_t))) {
    const device::Grid grid = RowGrid(rows, elements / kPackElements);
    return device::Launch<ConvertHeadsKernel<kPackElements>>(stream, grid, args);
  }
  device::Launch<ConvertHeadsKernel<1>>(stream, RowGrid(rows, elements), args);
}

// Rotates kCount pairs; multiply-adds as the processor's kernel sets have them.
template <int kCount>
struct RopeKernel {
  using Args = RopeArgs;
  using Elements = Pack<float, kCount>;
  static constexpr int kThreads = kRowThreads;

  static WIDELOAD_DEVICE void Run(const Args& args) {
    const auto item = static_cast<int32_t>(RowItem());
    const auto per_head = static_cast<int32_t>(args.half / kCount);
    const int32_t head = item / per_head;
    if (head >= args.runs.heads) return;
    const int64_t i = int64_t{item % per_head} * kCount;
    const int64_t row = device::Block();
    std::byte* const at = RowOf(args.x, row) + head * args.runs.stride * int64_t{sizeof(float)};
    // Pairs have an element in each of these, or stand in them one after the other.
    const int64_t first = args.interleaved ? 2 * i : i;
    const int64_t second = args.interleaved ? 2 * i + kCount : args.half + i;
    const Elements x = LoadElements<kCount>(at, TableFormat::kF32, first);
    const Elements y = LoadElements<kCount>(at, TableFormat::kF32, second);
    Elements a;
    Elements b;
    for (int j = 0; j < kCount; ++j) {
      a.values[j] = args.interleaved ? PlaceOf(x, y, 2 * j) : x.values[j];
      b.values[j] = args.interleaved ? PlaceOf(x, y, 2 * j + 1) : y.values[j];
    }
    Rotate(args, row, i, a, b);
    Elements x_rotated;
    Elements y_rotated;
    for (int j = 0; j < kCount; ++j) {
      x_rotated.values[j] = args.interleaved ? PairOf(a, b, j) : a.values[j];
      y_rotated.values[j] = args.interleaved ? PairOf(a, b, j + kCount) : b.values[j];
    }
    StoreElements(at, true, first, x_rotated);
    StoreElements(at, true, second, y_rotated);
  }

 private:
  // Element i of x followed by y, and of a and b taken by turns: with an i known to the compiler,
  // or they would leave the registers.
  static WIDELOAD_DEVICE float PlaceOf(const Elements& x, const Elements& y, int i) {
    return i < kCount ? x.values[i] : y.values[i - kCount];
  }
  static WIDELOAD_DEVICE float PairOf(const Elements& a, const Elements& b, int i) {
    return i % 2 == 0 ? a.values[i / 2] : b.values[i / 2];
  }
  static WIDELOAD_DEVICE void Rotate(const Args& args, int64_t row, int64_t i, Elements& a,
                                     Elements& b) {
    const auto* const cos = reinterpret_cast<const std::byte*>(args.cos + row * args.cos_stride);
    const auto* const sin = reinterpret_cast<const std::byte*>(args.sin + row * args.sin_stride);
    const Elements c = LoadElements<kCount>(cos, TableFormat::kF32, i);
    const Elements s = LoadElements<kCount>(sin, TableFormat::kF32, i);
    for (int j = 0; j < kCount; ++j) {
      const float x = a.values[j];
      const float y = b.values[j];
      a.values[j] = device::MultiplyAdd(-y, s.values[j], x * c.values[j]);
      b.values[j] = device::MultiplyAdd(x, s.values[j], y * c.values[j]);
    }
  }
};

inline void Rope(device::Stream& stream, const RopeArgs& args, int64_t rows) {
  const int64_t pairs = args.runs.heads * args.half;
  if (rows == 0 || pairs == 0) return;
  constexpr auto kBytes = int64_t{sizeof(float)};
  if (args.half % kPackElements == 0 && args.runs.stride % kPackElements == 0 &&
      HasPacks(args.x, kBytes) && HasPacks(args.cos, args.cos_stride * kBytes, kBytes) &&
      HasPacks(args.sin, args.sin_stride * kBytes, kBytes)) {
    const device::Grid grid = RowGrid(rows, pairs / kPackElements);
    return device::Launch<RopeKernel<kPackElements>>(stream, grid, args);
  }
  device::Launch<RopeKernel<1>>(stream, RowGrid(rows, pairs), args);
}

// Copies bytes [begin, end) in words that they are a multiple of, four of them under way in each
// thread.
template <class Word>
WIDELOAD_DEVICE void CopyWords(const std::byte* from, std::byte* to, int64_t begin, int64_t end) {
  constexpr int kUnderWay = 4;
  constexpr auto kBytes = int64_t{sizeof(Word)};
  const int64_t distance = kBytes * device::NumThreads();
  for (int64_t at = begin + device::Thread() * kBytes; at < end; at += kUnderWay * distance) {
    Word words[kUnderWay];
    for (int j = 0; j < kUnderWay; ++j) {
      if (at + j * distance < end) words[j] = device::Load<Word>(from + at + j * distance);
    }
    for (int j = 0; j < kUnderWay; ++j) {
      if (at + j * distance < end) device::Store(to + at + j * distance, words[j]);
    }
  }
}

// A block copies kPieceBytes of a row: four packs of 16 bytes in each thread.
struct CopyRowsKernel {
  struct Args {
    InRows from;
    const int32_t* indices;  // of the rows of `from`; null: their own
    OutRows to;
    int64_t row_bytes;
  };
  static constexpr int kThreads = kRowThreads;
  static constexpr int64_t kPieceBytes = int64_t{4 * 16} * kThreads;
  static WIDELOAD_DEVICE void Run(const Args& args) {
    const int64_t row = device::Block();
    const std::byte* const from =
        RowOf(args.from, args.indices != nullptr ? args.indices[row] : row);
    std::byte* const to = RowOf(args.to, row);
    const int64_t begin = device::BlockY() * kPieceBytes;
    const int64_t end = begin + kPieceBytes < args.row_bytes ? begin + kPieceBytes : args.row_bytes;
    // The same for all threads of the block.
    const auto low_bits = reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to) |
                          static_cast<uintptr_t>(args.row_bytes);
    if (low_bits % sizeof(Pack<uint32_t, 4>) == 0)
      CopyWords<Pack<uint32_t, 4>>(from, to, begin, end);
    else if (low_bits % sizeof(uint32_t) == 0)
      CopyWords<uint32_t>(from, to, begin, end);
    else
      CopyWords<uint8_t>(from, to, begin, end);
  }
  static void LaunchOn(device::Stream& stream, const Args& args, int64_t rows) {
    if (rows == 0 || args.row_bytes == 0) return;
    const device::Grid grid = {.blocks = rows,
                               .blocks_y = (args.row_bytes + kPieceBytes - 1) / kPieceBytes,
                               .threads = kThreads};
    device::Launch<CopyRowsKernel>(stream, grid, args);
  }
};

inline void GatherRows(device::Stream& stream, const GatherArgs& args, int64_t rows) {
  CopyRowsKernel::LaunchOn(stream, {args.x, args.indices, args.y, args.row_bytes}, rows);
}

inline void CopyRows(device::Stream& stream, const CopyRowsArgs& args) {
  CopyRowsKernel::LaunchOn(
      stream, {{.pointers = args.from}, nullptr, {.pointers = args.to}, args.row_bytes}, args.rows);
}

// A thread adds kCount columns of a row: of four rows at a time, whose loads are under way
// together.
template <int kCount>
struct CombineKernel {
  using Args = CombineArgs;
  static constexpr int kThreads = kRowThreads;

  static WIDELOAD_DEVICE void Run(const Args& args) {
    constexpr int kUnderWay = 4;
    const int64_t i = RowItem() * kCount;
    if (i >= args.width) return;
    const int64_t token = device::Block();
    const std::byte* const* const rows = args.rows + token * args.top_k;
    const auto* const weights = reinterpret_cast<const float*>(RowOf(args.weights, token));
    Pack<float, kCount> sum = {};
    for (int64_t k = 0; k < args.top_k; k += kUnderWay) {
      Pack<uint16_t, kCount> loaded[kUnderWay];
      bool has_row[kUnderWay];
      for (int j = 0; j < kUnderWay; ++j) {
        const std::byte* const row = k + j < args.top_k ? rows[k + j] : nullptr;
        has_row[j] = row != nullptr;
        if (row != nullptr) loaded[j] = LoadBf16(row, i);
      }
      for (int j = 0; j < kUnderWay; ++j) {
        if (!has_row[j]) continue;
        for (int c = 0; c < kCount; ++c)
          sum.values[c] = device::MultiplyAdd(weights[k + j], device::FromBf16(loaded[j].values[c]),
                                              sum.values[c]);
      }
    }
    std::byte* const y = RowOf(args.y, token);
    Pack<float, kCount> total = LoadElements<kCount>(y, TableFormat::kF32, i);
    for (int c = 0; c < kCount; ++c) total.values[c] += sum.values[c];
    StoreElements(y, true, i, total);
  }

 private:
  // Rows may begin anywhere; all threads of a block have the same ones.
  static WIDELOAD_DEVICE Pack<uint16_t, kCount> LoadBf16(const std::byte* row, int64_t i) {
    const auto* const elements = reinterpret_cast<const uint16_t*>(row) + i;
    if (reinterpret_cast<uintptr_t>(row) % sizeof(Pack<uint16_t, kCount>) == 0)
      return device::Load<Pack<uint16_t, kCount>>(elements);
    Pack<uint16_t, kCount> pack;
    for (int c = 0; c < kCount; ++c) pack.values[c] = elements[c];
    return pack;
  }
};

inline void Combine(device::Stream& stream, const CombineArgs& args, int64_t rows) {
  if (rows == 0 || args.width == 0) return;
  if (args.width % kPackElements == 0 && HasPacks(args.y, sizeof(float))) {
    const device::Grid grid = RowGrid(rows, args.width / kPackElements);
    return device::Launch<CombineKernel<kPackElements>>(stream, grid, args);
  }
  device::Launch<CombineKernel<1>>(stream, RowGrid(rows, args.width), args);
}

// A warp for each run of each row: lane l adds the squares of elements l, l + 32, ... and the
// lanes' sums are added in WarpSum's tree, whatever the grid.
struct NormKernel {
  struct Args {
    NormArgs norm;
    int64_t num_runs;
  };
  static constexpr int kThreads = 128;
  static WIDELOAD_DEVICE void Run(const Args& args) {
    const NormArgs& norm = args.norm;
    const int64_t run = device::Block() * (device::NumThreads() / device::kWarp) + device::Warp();
    if (run >= args.num_runs) return;
    const int64_t row = run / norm.runs.heads;
    const int64_t first = run % norm.runs.heads * norm.runs.stride;
    const int64_t width = norm.runs.width;
    const auto* x = reinterpret_cast<const float*>(RowOf(norm.x, row)) + first;
    float squares = 0;
    for (int64_t i = device::Lane(); i < width; i += device::kWarp)
      squares = device::MultiplyAdd(x[i], x[i], squares);
    squares = device::WarpSum(squares);
    const float mean = device::Divide(squares, static_cast<float>(width));
    const float scale = device::Divide(1.0F, device::SquareRoot(mean + norm.eps));
    std::byte* const y = RowOf(norm.y, row);
    for (int64_t i = device::Lane(); i < width; i += device::kWarp) {
      const float weight = norm.weight != nullptr ? norm.weight[i] : 1.0F;
      StoreElement(y, norm.y_is_f32, first + i, x[i] * scale * weight);
    }
  }
};

inline void Norm(device::Stream& stream, const NormArgs& args, int64_t rows) {
  constexpr int64_t kWarpsPerBlock = NormKernel::kThreads / device::kWarp;
  const int64_t num_runs = rows * args.runs.heads;
  if (num_runs == 0) return;
  device::Launch<NormKernel>(
      stream,
      {.blocks = (num_runs + kWarpsPerBlock - 1) / kWarpsPerBlock, .threads = NormKernel::kThreads},
      {args, num_runs});
}

}  // namespace wideload::compute::cuda
