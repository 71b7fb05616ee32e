#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/load_progress.h"

namespace wideload::checkpoint {
namespace {

constexpr int64_t kElementsPerTask = int64_t{1} << 20;

struct Piece {
  std::string_view name;
  TensorView view;
  int64_t begin;
  int64_t end;
};

bool IsFloating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBF16 ||
         dtype == DType::kF16 || dtype == DType::kF8E4M3;
}

// The first element in [begin, end) whose exponent bits say NaN or infinity.
template <class T>
std::optional<int64_t> FindBits(const T* data, int64_t begin, int64_t end, T exponent_mask) {
  for (int64_t i = begin; i < end; ++i)
    if ((data[i] & exponent_mask) == exponent_mask) return i;
  return std::nullopt;
}

std::optional<int64_t> FindNonFinite(const Piece& piece) {
  const auto find = [&](auto mask) {
    using T = decltype(mask);
    return FindBits(static_cast<const T*>(piece.view.raw()), piece.begin, piece.end, mask);
  };
  switch (piece.view.dtype()) {
    case DType::kF64:
      return find(uint64_t{0x7ff0000000000000});
    case DType::kF32:
      return find(uint32_t{0x7f800000});
    case DType::kBF16:
      return find(uint16_t{0x7f80});
    case DType::kF16:
      return find(uint16_t{0x7c00});
    default:  // F8_E4M3 has NaN, all bits below the sign set, and no infinity
      return find(uint8_t{0x7f});
  }
}

std::vector<Piece> CutIntoPieces(const Checkpoint& checkpoint,
                                 std::span<const std::string_view> names) {
  std::vector<Piece> pieces;
  for (const std::string_view name : names) {
    const TensorView& view = checkpoint.Peek(name);
    if (!IsFloating(view.dtype())) continue;
    const int64_t count = view.shape().num_elements();
    for (int64_t begin = 0; begin < count; begin += kElementsPerTask)
      pieces.push_back({name, view, begin, std::min(count, begin + kElementsPerTask)});
  }
  return pieces;
}

}  // namespace

void CheckWeights(const Checkpoint& checkpoint, std::span<const std::string_view> names,
                  ThreadPool& pool) {
  std::vector<std::string_view> chosen(names.begin(), names.end());
  if (chosen.empty()) chosen = checkpoint.Names();
  std::sort(chosen.begin(), chosen.end());
  const std::vector<Piece> pieces = CutIntoPieces(checkpoint, chosen);
  uint64_t total_bytes = 0;
  for (const Piece& piece : pieces)
    total_bytes +=
        static_cast<uint64_t>((piece.end - piece.begin) * DTypeBytes(piece.view.dtype()));
  LoadProgress progress("checking weights", total_bytes);
  constexpr int64_t kNone = -1;
  std::vector<int64_t> found(pieces.size(), kNone);
  const auto check = [&](int64_t i, int) {
    const Piece& piece = pieces[static_cast<size_t>(i)];
    found[static_cast<size_t>(i)] = FindNonFinite(piece).value_or(kNone);
    progress.Add(static_cast<uint64_t>((piece.end - piece.begin) * DTypeBytes(piece.view.dtype())));
  };
  pool.Run(static_cast<int64_t>(pieces.size()), check);
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (found[i] == kNone) continue;
    Throw(ErrorKind::kCorrupt, "{}: tensor {}, element {} of {} is {}; weights must be finite",
          checkpoint.FileOf(pieces[i].name), pieces[i].name, found[i],
          pieces[i].view.shape().ToString(),
          LoadFloat(pieces[i].view.dtype(), pieces[i].view.raw(), found[i]));
  }
  progress.Finish();
}

}  // namespace wideload::checkpoint
