// The paged KV cache and attention over it.
//
// A warp has 16 rows, each a query head of a token, of one KV head. It walks the cache in tiles of
// positions with an online softmax in fp32; every 256 positions, counted from position 0, this part
// of the softmax is closed and folded into the running one. So a part is the same function of its
// row and positions whoever computes it: one warp all of them (prefill), or a warp each (decode),
// and folding them in order gives the same bits. Products with weights of 0 leave a sum's bits, so
// that a row does not depend on what the others of its fragment see.
#pragma once

#include <algorithm>
#include <vector>

#include "compute/cuda/kernels.h"
#include "compute/cuda/row_kernels.h"
#include "device/kernel.h"

namespace wideload::compute::cuda {

inline constexpr int kFragmentRows = 16;
inline constexpr int kPartPositions = 256;
// Positions of a tile: its scores are registers, with the sums of values of a head of up to kDims.
template <int kDims>
inline constexpr int kTilePositions = kDims > 128 ? 32 : 64;

// What a block computes.
struct AttentionUnit {
  int32_t sequence = 0;
  int32_t first_row = 0;  // of the sequence's tokens x heads
  int32_t part = 0;       // the only one, or kAllParts; of a fold: how many there are
  int32_t slot = 0;       // where its part is left, or the first of those to fold
};
inline constexpr int32_t kAllParts = -1;

// A block and an offset in it as one number, -1 for places that are not read.
WIDELOAD_DEVICE int32_t CellOf(const KvCache& cache, const int32_t* blocks, int64_t position) {
  const auto tokens = static_cast<int32_t>(cache.block_tokens);
  const auto at = static_cast<int32_t>(position);
  const int32_t index = at / tokens;
  return blocks[index / static_cast<int32_t>(cache.num_parts)] << 8 | (at - index * tokens);
}
static_assert(kMaxBlockTokens <= 256 && kMaxCacheBlocks <= int64_t{1} << 23);

// Where a cell's row of `width` elements lies, in keys or values.
WIDELOAD_DEVICE std::byte* RowOfCell(const KvCache& cache, std::byte* base, int64_t block_bytes,
                                     int64_t width, int32_t cell, int64_t kv_head) {
  return base + (cell >> 8) * block_bytes +
         (kv_head * cache.block_tokens + (cell & 255)) * width * 2;
}

WIDELOAD_DEVICE bool IsFiniteBf16(uint16_t bits) { return (bits & 0x7f80U) != 0x7f80U; }

// A warp for each token and head.
struct StoreKvKernel {
  struct Args {
    StoreKvArgs store;
    const Sequence* sequences;
    const int32_t* blocks;
    const AttentionUnit* units;  // kTokens each
  };
  static constexpr int kThreads = 128;
  static constexpr int kTokens = 4;

  static WIDELOAD_DEVICE void Run(const Args& args) {
    const AttentionUnit unit = args.units[device::Block()];
    const Sequence& sequence = args.sequences[unit.sequence];
    const KvCache& cache = args.store.cache;
    const auto heads = static_cast<int>(cache.kv_heads);
    for (int i = device::Warp(); i < kTokens * heads; i += device::NumThreads() / device::kWarp) {
      const int64_t token = unit.first_row + i / heads;
      if (token >= sequence.num_tokens) return;
      const int64_t position = sequence.start_position + token;
      if (position / cache.block_tokens % cache.num_parts != cache.part) continue;
      const int32_t cell = CellOf(cache, args.blocks + sequence.first_block, position);
      Store(args.store, sequence.first_row + token, i % heads, cell);
    }
  }

 private:
  // Whether this lane's elements of a row are finite in bf16.
  static WIDELOAD_DEVICE bool IsFinite(const float* row, int64_t width) {
    bool is_finite = true;
    for (int64_t d = device::Lane(); d < width; d += device::kWarp)
      is_finite = is_finite && IsFiniteBf16(device::ToBf16(row[d]));
    return is_finite;
  }

  static WIDELOAD_DEVICE void Store(const StoreKvArgs& store, int64_t row, int64_t head,
                                    int32_t cell) {
    const KvCache& cache = store.cache;
    const auto* k = reinterpret_cast<const float*>(RowOf(store.k, row)) + head * cache.key_dim;
    auto* const key = reinterpret_cast<uint16_t*>(
        RowOfCell(cache, cache.keys, cache.key_block_bytes, cache.key_dim, cell, head));
    if (cache.values == nullptr) {
      for (int64_t d = device::Lane(); d < cache.key_dim; d += device::kWarp)
        key[d] = device::ToBf16(k[d]);
      return;
    }
    const auto* v = reinterpret_cast<const float*>(RowOf(store.v, row)) + head * cache.value_dim;
    auto* const value = reinterpret_cast<uint16_t*>(
        RowOfCell(cache, cache.values, cache.value_block_bytes, cache.value_dim, cell, head));
    constexpr uint16_t kNan = 0x7fc0;
    const bool is_mine_finite = IsFinite(k, cache.key_dim) && IsFinite(v, cache.value_dim);
    const bool is_finite = device::Ballot(!is_mine_finite) == 0;
    for (int64_t d = device::Lane(); d < cache.key_dim; d += device::kWarp)
      key[d] = is_finite ? device::ToBf16(k[d]) : kNan;
    for (int64_t d = device::Lane(); d < cache.value_dim; d += device::kWarp)
      value[d] = is_finite ? device::ToBf16(v[d]) : uint16_t{0};
  }
};

struct AttentionArgsOnDevice {
  PagedAttentionArgs attention;
  const float* sinks;  // null: none
  const Sequence* sequences;
  const int32_t* blocks;
  const AttentionUnit* units;
  float* parts;       // of slot 0, head 0
  bool copies_by_16;  // rows of the cache can be copied by 16 bytes
};

// The two rows of a fragment that a lane has, and the positions that they see; a row that is not
// there sees all, which costs least and goes nowhere.
struct AttentionRows {
  int32_t row[2];   // of the batch; -1: there is none
  int32_t head[2];  // among all query heads
  int32_t first[2];
  int32_t last[2];
  // Of all rows of the warp: seen by any of them, and by all.
  int32_t begin;
  int32_t end;
  int32_t begin_of_all;
  int32_t end_of_all;
};

WIDELOAD_HOST_DEVICE int64_t FirstVisibleOf(const PagedAttentionArgs& args, int64_t position) {
  const int64_t in_window = args.window > 0 ? position + 1 - args.window : 0;
  const int64_t in_chunk = args.chunk > 0 ? position / args.chunk * args.chunk : 0;
  const int64_t first = in_window > in_chunk ? in_window : in_chunk;
  return first > 0 ? first : 0;
}

// Those of a warp whose first row is `first_row`.
WIDELOAD_DEVICE AttentionRows RowsOfLane(const PagedAttentionArgs& args, const Sequence& sequence,
                                         int64_t first_row, int64_t kv_head) {
  AttentionRows rows;
  for (int i = 0; i < 2; ++i) {
    const int64_t row = first_row + device::Lane() / 4 + 8 * i;
    const int64_t token = row / args.heads;
    const bool is_there = token < sequence.num_tokens;
    const int64_t position = sequence.start_position + token;
    rows.row[i] = is_there ? static_cast<int32_t>(sequence.first_row + token) : -1;
    rows.head[i] = static_cast<int32_t>(kv_head * args.heads + row % args.heads);
    rows.first[i] = is_there ? static_cast<int32_t>(FirstVisibleOf(args, position)) : 0;
    rows.last[i] = is_there ? static_cast<int32_t>(position) : INT32_MAX;
  }
  // Both ends rise with the rows.
  const int64_t num_rows = sequence.num_tokens * args.heads;
  const int64_t last_row =
      first_row + kFragmentRows <= num_rows ? first_row + kFragmentRows - 1 : num_rows - 1;
  const int64_t first_position = sequence.start_position + first_row / args.heads;
  const int64_t last_position = sequence.start_position + last_row / args.heads;
  const bool has_rows = first_row < num_rows;
  rows.begin = static_cast<int32_t>(FirstVisibleOf(args, first_position));
  rows.end = has_rows ? static_cast<int32_t>(last_position) + 1 : 0;
  rows.begin_of_all = static_cast<int32_t>(FirstVisibleOf(args, last_position));
  rows.end_of_all = static_cast<int32_t>(first_position) + 1;
  return rows;
}

constexpr float kMinusInfinity = -__builtin_huge_valf();
constexpr float kLog2E = 1.44269504F;

// A lane's share of a softmax over some positions: for its two rows the largest score and the sum
// of weights (0: nothing was seen), all in powers of two; `out` the sums of weights * values of
// kTiles tiles of 8 dimensions, as MultiplyMatrices has them.
template <int kTiles>
struct SoftmaxPartOf {
  float largest[2];
  float total[2];
  float out[kTiles][4];
};

template <int kTiles>
WIDELOAD_DEVICE void StartPart(SoftmaxPartOf<kTiles>& part) {
  for (int i = 0; i < 2; ++i) {
    part.largest[i] = kMinusInfinity;
    part.total[i] = 0;
  }
  WIDELOAD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile)
    for (int i = 0; i < 4; ++i) part.out[tile][i] = 0;
}

// What of two softmaxes counts in their sum.
struct FoldFactors {
  float a[2];
  float b[2];
};

// The head of a = a and b: the one expression for all. What has seen nothing does not take part.
WIDELOAD_DEVICE FoldFactors FoldTotals(float (&a_largest)[2], float (&a_total)[2],
                                       const float (&b_largest)[2], const float (&b_total)[2]) {
  FoldFactors factors;
  for (int i = 0; i < 2; ++i) {
    const bool has_a = a_total[i] != 0;
    const bool has_b = b_total[i] != 0;
    const float largest = device::Largest(a_largest[i], b_largest[i]);
    factors.a[i] = !has_a ? 0 : !has_b ? 1 : device::Exp2(a_largest[i] - largest);
    factors.b[i] = !has_b ? 0 : !has_a ? 1 : device::Exp2(b_largest[i] - largest);
    a_largest[i] = !has_b ? a_largest[i] : !has_a ? b_largest[i] : largest;
    a_total[i] = device::MultiplyAdd(b_total[i], factors.b[i], a_total[i] * factors.a[i]);
  }
  return factors;
}
// Element i of a lane's four.
WIDELOAD_DEVICE float Fold(const FoldFactors& factors, int i, float a, float b) {
  return device::MultiplyAdd(b, factors.b[i / 2], a * factors.a[i / 2]);
}

// The running softmax of a row before its first part.
WIDELOAD_DEVICE void StartTotals(const float* sinks, const AttentionRows& rows, float (&largest)[2],
                                 float (&total)[2]) {
  for (int i = 0; i < 2; ++i) {
    const bool has_sink = sinks != nullptr && rows.row[i] >= 0;
    largest[i] = has_sink ? sinks[rows.head[i]] * kLog2E : kMinusInfinity;
    total[i] = has_sink ? 1.0F : 0.0F;
  }
}

// y = out / total of a lane's four elements of tile `tile` of 8 dimensions.
WIDELOAD_DEVICE void FinishTile(const PagedAttentionArgs& args, const AttentionRows& rows, int tile,
                                const float (&out)[4], const float (&total)[2]) {
  for (int i = 0; i < 4; ++i) {
    const int64_t d = 8 * tile + device::Lane() % 4 * 2 + i % 2;
    if (rows.row[i / 2] < 0 || d >= args.cache.value_dim) continue;
    // Plus 0: products of zeros have made a sum of -0 one of 0, or not.
    const float y = device::Divide(out[i], total[i / 2]) + 0.0F;
    StoreElement(RowOf(args.y, rows.row[i / 2]), false, rows.head[i / 2] * args.cache.value_dim + d,
                 y);
  }
}

struct alignas(16) Float4 {
  float values[4];
};

// A part in memory: the lanes' `out`, a tile after the other, then of each row the largest score
// and the sum.
template <int kDims>
inline constexpr int64_t kPartFloats = int64_t{kFragmentRows} * kDims + 2 * kFragmentRows;

// kDims: of the head, at most; it alone chooses between the instances, so that the rows of a model
// are all of one of them.
//
// Shared memory: two stages of a tile of keys and of values, 69,632 bytes of heads of 128, so that
// 32 KiB are in flight while a tile is computed, by each of three blocks of one warp on a
// multiprocessor in decode; rows are 16 bytes longer than they need be, which puts the eight rows
// of an ldmatrix into different banks. Then the cells of two parts, and for each warp that folds
// parts its running sums (8 KiB), which are needed every 256 positions only.
template <int kDims>
struct AttentionKernel {
  using Args = AttentionArgsOnDevice;
  static constexpr int kThreads = 256;

  static constexpr int kTile = kTilePositions<kDims>;
  static constexpr int kPitch = 2 * kDims + 16;
  static constexpr int kTileBytes = kTile * kPitch;
  static constexpr int kSteps = kTile / 16;
  static constexpr int64_t kCellsAt = int64_t{4} * kTileBytes;
  static constexpr int64_t kWarpsAt = kCellsAt + int64_t{2} * kPartPositions * 4;
  // Of a warp: queries that registers have no room for, and running sums.
  static constexpr bool kKeepsQueries = kDims <= 128;
  static constexpr int kQueryUnroll = kKeepsQueries ? kDims / 16 : 1;
  static constexpr int64_t kQueryBytes = kKeepsQueries ? 0 : int64_t{kDims} * kFragmentRows * 2;
  static constexpr int64_t kRunningBytes = int64_t{kDims} * kFragmentRows * 4;

  using Part = SoftmaxPartOf<kDims / 8>;
  struct alignas(16) Fragment {
    uint32_t values[4];
  };
  // The queries of a warp: 16 dimensions each.
  struct Queries {
    Fragment fragments[kQueryUnroll];
  };
  // What a block is at.
  struct Place {
    const int32_t* blocks;  // of the sequence
    int32_t first;          // positions that any of its rows sees
    int32_t last;
  };

  static WIDELOAD_DEVICE std::byte* Stage(int tile, bool is_value) {
    return device::SharedMemory() + (tile % 2 * 2 + (is_value ? 1 : 0)) * kTileBytes;
  }

  static WIDELOAD_DEVICE void Run(const Args& args) {
    const PagedAttentionArgs& attention = args.attention;
    const AttentionUnit unit = args.units[device::Block()];
    const Sequence& sequence = args.sequences[unit.sequence];
    const int64_t num_rows = sequence.num_tokens * attention.heads;
    int64_t end_row = unit.first_row + device::NumThreads() / device::kWarp * kFragmentRows;
    if (end_row > num_rows) end_row = num_rows;
    const Place place = {
        args.blocks + sequence.first_block,
        static_cast<int32_t>(
            FirstVisibleOf(attention, sequence.start_position + unit.first_row / attention.heads)),
        static_cast<int32_t>(sequence.start_position + (end_row - 1) / attention.heads)};
    int32_t begin = place.first;
    int32_t end = place.last + 1;
    if (unit.part != kAllParts) {
      if (begin < unit.part * kPartPositions) begin = unit.part * kPartPositions;
      if (end > (unit.part + 1) * kPartPositions) end = (unit.part + 1) * kPartPositions;
    }
    const AttentionRows rows = RowsOfLane(
        attention, sequence, unit.first_row + device::Warp() * kFragmentRows, device::BlockY());
    Walk(args, rows, unit.part == kAllParts, place, begin / kTile, (end - 1) / kTile);
  }

 private:
  static WIDELOAD_DEVICE void Walk(const Args& args, const AttentionRows& rows, bool has_all_parts,
                                   const Place& place, int first_tile, int last_tile) {
    Queries queries;
    LoadQueries(args.attention, rows, queries);
    Part part;
    StartPart(part);
    float largest[2];
    float total[2];
    StartTotals(args.sinks, rows, largest, total);
    bool has_running = false;
    CopyTile(args, place, first_tile, true);
    for (int tile = first_tile; tile <= last_tile; ++tile) {
      if (tile < last_tile) CopyTile(args, place, tile + 1, false);
      device::CommitCopies();
      device::WaitCopies<1>();
      device::SyncBlock();
      TakeTile(args.attention, rows, queries, tile, part);
      device::SyncBlock();  // the next copies go where this tile was
      if (tile != last_tile && (tile + 1) % (kPartPositions / kTile) != 0) continue;
      if (!has_all_parts) return LeavePart(args, part);
      FoldPart(part, largest, total, has_running, tile == last_tile);
      has_running = true;
      if (tile != last_tile) StartPart(part);
    }
    WIDELOAD_UNROLL
    for (int i = 0; i < kDims / 8; ++i) FinishTile(args.attention, rows, i, part.out[i], total);
  }

  // This lane's share of what its warp keeps in shared memory, 16 bytes after those of the lane
  // before: nobody else touches it.
  template <class T>
  static WIDELOAD_DEVICE T* OfLane(bool is_running) {
    std::byte* const warp = device::SharedMemory() + kWarpsAt + device::Warp() * kQueryBytes;
    const int64_t warps = device::NumThreads() / device::kWarp;
    std::byte* const running =
        device::SharedMemory() + kWarpsAt + warps * kQueryBytes + device::Warp() * kRunningBytes;
    return reinterpret_cast<T*>(is_running ? running : warp) + device::Lane();
  }

  // Rows of a warp, rounded, with zeros behind their end.
  static WIDELOAD_DEVICE void LoadQueries(const PagedAttentionArgs& args, const AttentionRows& rows,
                                          Queries& queries) {
    const int64_t key_dim = args.cache.key_dim;
    const float* q[2];
    for (int i = 0; i < 2; ++i)
      q[i] = rows.row[i] < 0 ? nullptr
                             : reinterpret_cast<const float*>(RowOf(args.q, rows.row[i])) +
                                   rows.head[i] * key_dim;
    WIDELOAD_UNROLL_BY(kQueryUnroll)
    for (int k = 0; k < kDims / 16; ++k) {
      Fragment fragment;
      for (int i = 0; i < 4; ++i) {
        const int64_t d = 16 * k + i / 2 * 8 + device::Lane() % 4 * 2;
        const float* const row = q[i % 2];
        const float first = row != nullptr && d < key_dim ? row[d] : 0;
        const float second = row != nullptr && d + 1 < key_dim ? row[d + 1] : 0;
        fragment.values[i] = device::PackBf16(first, second);
      }
      if constexpr (kKeepsQueries)
        queries.fragments[k] = fragment;
      else
        OfLane<Fragment>(false)[k * device::kWarp] = fragment;
    }
  }

  // The cells of a part's positions, as far as they are seen. All threads of the block.
  static WIDELOAD_DEVICE void FindCells(const Args& args, const Place& place, int part) {
    auto* const cells =
        reinterpret_cast<int32_t*>(device::SharedMemory() + kCellsAt) + part % 2 * kPartPositions;
    for (int i = device::Thread(); i < kPartPositions; i += device::NumThreads()) {
      const int32_t position = part * kPartPositions + i;
      const bool is_seen = position >= place.first && position <= place.last;
      cells[i] = is_seen ? CellOf(args.attention.cache, place.blocks, position) : -1;
    }
    device::SyncBlock();
  }

  // Begins the copies of a tile, by all threads of the block.
  static WIDELOAD_DEVICE void CopyTile(const Args& args, const Place& place, int tile,
                                       bool is_first) {
    constexpr int kTilesOfPart = kPartPositions / kTile;
    const int part = tile / kTilesOfPart;
    if (is_first || tile % kTilesOfPart == 0) FindCells(args, place, part);
    const auto* const cells = reinterpret_cast<const int32_t*>(device::SharedMemory() + kCellsAt) +
                              part % 2 * kPartPositions + tile % kTilesOfPart * kTile;
    const KvCache& cache = args.attention.cache;
    CopyRows(args, cells, cache.keys, cache.key_block_bytes, cache.key_dim, Stage(tile, false));
    CopyRows(args, cells, cache.values, cache.value_block_bytes, cache.value_dim,
             Stage(tile, true));
    if (is_first) device::CommitCopies();
  }

  // Lanes of a warp copy neighbouring pieces of 16 bytes. Zeros where a place is not seen, and up
  // to a multiple of 16 dimensions.
  static WIDELOAD_DEVICE void CopyRows(const Args& args, const int32_t* cells, std::byte* base,
                                       int64_t block_bytes, int64_t width, std::byte* stage) {
    constexpr int kPieces = kDims / 8;
    const int num_pieces = static_cast<int>((width + 15) / 16 * 2);
    for (int i = device::Thread(); i < kTile * kPieces; i += device::NumThreads()) {
      const int piece = i % kPieces;
      if (piece >= num_pieces) continue;
      const int32_t cell = cells[i / kPieces];
      const std::byte* const row = RowOfCell(args.attention.cache, base, block_bytes, width,
                                             cell < 0 ? 0 : cell, device::BlockY());
      std::byte* const to = stage + i / kPieces * kPitch + piece * 16;
      const int count = cell < 0 ? 0 : static_cast<int>(width) - 8 * piece;
      if (args.copies_by_16) {
        device::CopyAsync16(to, count > 0 ? row + piece * 16 : base, count > 0 ? 16 : 0);
        continue;
      }
      for (int e = 0; e < 8; ++e)
        reinterpret_cast<uint16_t*>(to)[e] =
            e < count ? reinterpret_cast<const uint16_t*>(row)[8 * piece + e] : uint16_t{0};
    }
  }

  // The part takes the positions of a tile.
  static WIDELOAD_DEVICE void TakeTile(const PagedAttentionArgs& args, const AttentionRows& rows,
                                       const Queries& queries, int tile, Part& part) {
    const int first = tile * kTile;
    if (rows.end <= first || rows.begin >= first + kTile) return;
    const int num_steps = rows.end - first >= kTile ? kSteps : (rows.end - first + 15) / 16;
    float scores[kTile / 8][4];
    Score(args, queries, Stage(tile, false), num_steps, scores);
    uint32_t weights[kTile / 8][2];
    Mask(args, rows, first, scores);
    Weigh(scores, weights, part);
    AddValues(args, Stage(tile, true), num_steps, weights, part);
  }

  // scores = q k^T of the first num_steps * 16 positions.
  static WIDELOAD_DEVICE void Score(const PagedAttentionArgs& args, const Queries& queries,
                                    const std::byte* stage, int num_steps,
                                    float (&scores)[kTile / 8][4]) {
    const int lane = device::Lane();
    const std::byte* const from = stage + (lane % 8 + lane / 16 * 8) * kPitch + lane / 8 % 2 * 16;
    WIDELOAD_UNROLL
    for (int i = 0; i < kTile / 8; ++i)
      for (int e = 0; e < 4; ++e) scores[i][e] = 0;
    WIDELOAD_UNROLL_BY(kQueryUnroll)
    for (int k = 0; k < kDims / 16; ++k) {
      if (16 * k >= args.cache.key_dim) break;
      Fragment query;
      if constexpr (kKeepsQueries)
        query = queries.fragments[k];
      else
        query = OfLane<Fragment>(false)[k * device::kWarp];
      WIDELOAD_UNROLL
      for (int step = 0; step < kSteps; ++step) {
        if (step >= num_steps) break;
        uint32_t keys[4];
        device::LoadMatrices4(keys, from + step * 16 * kPitch + k * 32);
        device::MultiplyMatrices(scores[2 * step], query.values, {keys[0], keys[1]});
        device::MultiplyMatrices(scores[2 * step + 1], query.values, {keys[2], keys[3]});
      }
    }
  }

  // scores * scale, in powers of two, and minus infinity where a row does not see the position.
  static WIDELOAD_DEVICE void Mask(const PagedAttentionArgs& args, const AttentionRows& rows,
                                   int first, float (&scores)[kTile / 8][4]) {
    const float scale = args.scale * kLog2E;
    const bool all_seen = first >= rows.begin_of_all && first + kTile <= rows.end_of_all;
    WIDELOAD_UNROLL
    for (int i = 0; i < kTile / 8; ++i) {
      for (int e = 0; e < 4; ++e) {
        scores[i][e] *= scale;
        if (all_seen) continue;
        const int position = first + 8 * i + device::Lane() % 4 * 2 + e % 2;
        const bool is_seen = position >= rows.first[e / 2] && position <= rows.last[e / 2];
        scores[i][e] = is_seen ? scores[i][e] : kMinusInfinity;
      }
    }
  }

  // Scores become weights, and part's sums shrink by what its largest score has grown.
  static WIDELOAD_DEVICE void Weigh(const float (&scores)[kTile / 8][4],
                                    uint32_t (&weights)[kTile / 8][2], Part& part) {
    for (int r = 0; r < 2; ++r) {
      float largest = kMinusInfinity;
      WIDELOAD_UNROLL
      for (int i = 0; i < kTile / 8; ++i)
        largest = device::Largest(largest, device::Largest(scores[i][2 * r], scores[i][2 * r + 1]));
      largest = device::Largest(largest, device::ShuffleXor(largest, 1));
      largest = device::Largest(largest, device::ShuffleXor(largest, 2));
      largest = device::Largest(largest, part.largest[r]);
      // Of a row that has seen nothing yet every weight is 0.
      const float base = largest == kMinusInfinity ? 0 : largest;
      const float shrink = device::Exp2(part.largest[r] - base);
      float total = 0;
      WIDELOAD_UNROLL
      for (int i = 0; i < kTile / 8; ++i) {
        const uint32_t pair = device::PackBf16(device::Exp2(scores[i][2 * r] - base),
                                               device::Exp2(scores[i][2 * r + 1] - base));
        weights[i][r] = pair;
        // Of the weights that values are multiplied with: they add up to 1.
        total += device::FloatOfBits(pair << 16) + device::FloatOfBits(pair & 0xffff0000U);
      }
      total += device::ShuffleXor(total, 1);
      total += device::ShuffleXor(total, 2);
      part.total[r] = device::MultiplyAdd(part.total[r], shrink, total);
      part.largest[r] = largest;
      WIDELOAD_UNROLL
      for (int i = 0; i < kDims / 8; ++i)
        for (int e = 0; e < 2; ++e) part.out[i][2 * r + e] *= shrink;
    }
  }

  // out += weights x values.
  static WIDELOAD_DEVICE void AddValues(const PagedAttentionArgs& args, const std::byte* stage,
                                        int num_steps, const uint32_t (&weights)[kTile / 8][2],
                                        Part& part) {
    const int lane = device::Lane();
    const std::byte* const from = stage + lane % 16 * kPitch + lane / 16 * 16;
    WIDELOAD_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      if (step >= num_steps) break;
      const uint32_t(&low)[2] = weights[2 * step];
      const uint32_t(&high)[2] = weights[2 * step + 1];
      const uint32_t a[4] = {low[0], low[1], high[0], high[1]};
      WIDELOAD_UNROLL
      for (int d = 0; d < kDims / 16; ++d) {
        if (16 * d >= args.cache.value_dim) break;
        uint32_t values[4];
        device::LoadMatrices4Transposed(values, from + step * 16 * kPitch + d * 32);
        device::MultiplyMatrices(part.out[2 * d], a, {values[0], values[1]});
        device::MultiplyMatrices(part.out[2 * d + 1], a, {values[2], values[3]});
      }
    }
  }

  // The running softmax, which is the first part before there are two, takes a part. Afterwards it
  // is in `part` if this one is the last, else in shared memory, where a lane touches its own only.
  static WIDELOAD_DEVICE void FoldPart(Part& part, float (&largest)[2], float (&total)[2],
                                       bool has_running, bool is_last) {
    const FoldFactors factors = FoldTotals(largest, total, part.largest, part.total);
    Float4* const running = OfLane<Float4>(true);
    WIDELOAD_UNROLL
    for (int i = 0; i < kDims / 8; ++i) {
      Float4 sums = {};
      if (has_running) sums = running[i * device::kWarp];
      for (int e = 0; e < 4; ++e) {
        sums.values[e] = Fold(factors, e, sums.values[e], part.out[i][e]);
        if (is_last) part.out[i][e] = sums.values[e];
      }
      if (!is_last) running[i * device::kWarp] = sums;
    }
  }

  static WIDELOAD_DEVICE void LeavePart(const Args& args, const Part& part) {
    const int64_t slot = args.units[device::Block()].slot;
    float* const to =
        args.parts + (slot * args.attention.cache.kv_heads + device::BlockY()) * kPartFloats<kDims>;
    WIDELOAD_UNROLL
    for (int i = 0; i < kDims / 8; ++i) {
      Float4 sums;
      for (int e = 0; e < 4; ++e) sums.values[e] = part.out[i][e];
      reinterpret_cast<Float4*>(to)[i * device::kWarp + device::Lane()] = sums;
    }
    if (device::Lane() % 4 != 0) return;
    float* const rows = to + kDims * kFragmentRows;
    for (int r = 0; r < 2; ++r) {
      rows[device::Lane() / 4 + 8 * r] = part.largest[r];
      rows[device::Lane() / 4 + 8 * r + kFragmentRows] = part.total[r];
    }
  }
};

// The parts of rows that have been left, folded: a warp for each 8 dimensions.
template <int kDims>
struct FoldPartsKernel {
  using Args = AttentionArgsOnDevice;
  static constexpr int kThreads = 64;
  static constexpr int kTilesOfBlock = kThreads / device::kWarp;
  static constexpr int kBlocksOfUnit = kDims / 8 / kTilesOfBlock;
  static constexpr int kAtOnce = 8;  // parts on their way: 64 registers

  static WIDELOAD_DEVICE void Run(const Args& args) {
    const AttentionUnit unit = args.units[device::Block() / kBlocksOfUnit];
    const int tile =
        static_cast<int>(device::Block() % kBlocksOfUnit) * kTilesOfBlock + device::Warp();
    const KvCache& cache = args.attention.cache;
    if (8 * tile >= cache.value_dim) return;
    const int64_t kv_head = device::BlockY();
    const AttentionRows rows =
        RowsOfLane(args.attention, args.sequences[unit.sequence], unit.first_row, kv_head);
    float largest[2];
    float total[2];
    StartTotals(args.sinks, rows, largest, total);
    Float4 out = {};
    const int64_t stride = cache.kv_heads * kPartFloats<kDims>;
    const float* from = args.parts + unit.slot * stride + kv_head * kPartFloats<kDims>;
    for (int first = 0; first < unit.part; first += kAtOnce, from += kAtOnce * stride)
      FoldSome(from, stride, unit.part - first, tile, {largest, total, out.values});
    FinishTile(args.attention, rows, tile, out.values, total);
  }

 private:
  struct Running {
    float (&largest)[2];
    float (&total)[2];
    float (&out)[4];
  };

  static WIDELOAD_DEVICE void FoldSome(const float* from, int64_t stride, int count, int tile,
                                       const Running& running) {
    const int row = device::Lane() / 4;
    Float4 out[kAtOnce];
    float largest[kAtOnce][2];
    float total[kAtOnce][2];
    WIDELOAD_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      if (i >= count) break;
      const float* const part = from + i * stride;
      out[i] = reinterpret_cast<const Float4*>(part)[tile * device::kWarp + device::Lane()];
      for (int r = 0; r < 2; ++r) {
        largest[i][r] = part[kDims * kFragmentRows + row + 8 * r];
        total[i][r] = part[kDims * kFragmentRows + kFragmentRows + row + 8 * r];
      }
    }
    WIDELOAD_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      if (i >= count) break;
      const FoldFactors factors = FoldTotals(running.largest, running.total, largest[i], total[i]);
      for (int e = 0; e < 4; ++e)
        running.out[e] = Fold(factors, e, running.out[e], out[i].values[e]);
    }
  }
};

// The units of a step.
struct AttentionPlan {
  std::vector<AttentionUnit> whole;  // all parts by one block
  std::vector<AttentionUnit> parts;  // of few rows that see many positions: a warp each
  std::vector<AttentionUnit> folds;
  int64_t warps = 1;       // of a block of `whole`
  bool has_folds = false;  // in blocks of `whole`
};

// Sequences of at most this many rows of a KV head are cut into parts.
inline constexpr int64_t kMostRowsInParts = 2 * kFragmentRows;

inline AttentionPlan PlanAttention(const PagedAttentionArgs& args, const Batch& batch,
                                   int64_t max_warps) {
  AttentionPlan plan;
  const auto num_rows = [&](const Sequence& s) { return s.num_tokens * args.heads; };
  const auto num_parts = [&](const Sequence& s) {
    const int64_t last = s.start_position + s.num_tokens - 1;
    return last / kPartPositions - FirstVisibleOf(args, s.start_position) / kPartPositions + 1;
  };
  const auto is_in_parts = [&](const Sequence& s) {
    return num_rows(s) <= kMostRowsInParts && num_parts(s) > 1;
  };
  int64_t most_rows = 1;
  for (const Sequence& s : batch.sequences)
    if (!is_in_parts(s)) most_rows = std::max(most_rows, num_rows(s));
  plan.warps = std::min(max_warps, (most_rows + kFragmentRows - 1) / kFragmentRows);
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const Sequence& s = batch.sequences[i];
    if (s.num_tokens == 0) continue;
    AttentionUnit unit = {.sequence = static_cast<int32_t>(i), .part = kAllParts};
    if (!is_in_parts(s)) {
      plan.has_folds = plan.has_folds || num_parts(s) > 1;
      // The last rows first: they see the most.
      const int64_t rows = plan.warps * kFragmentRows;
      for (int64_t first = (num_rows(s) - 1) / rows * rows; first >= 0; first -= rows) {
        unit.first_row = static_cast<int32_t>(first);
        plan.whole.push_back(unit);
      }
      continue;
    }
    for (int64_t first = 0; first < num_rows(s); first += kFragmentRows) {
      const int64_t first_token = first / args.heads;
      const int64_t end_row = std::min(num_rows(s), first + kFragmentRows);
      const int64_t visible = FirstVisibleOf(args, s.start_position + first_token);
      const int64_t last = s.start_position + (end_row - 1) / args.heads;
      unit.first_row = static_cast<int32_t>(first);
      AttentionUnit fold = unit;
      fold.slot = static_cast<int32_t>(plan.parts.size());
      for (int64_t part = visible / kPartPositions; part <= last / kPartPositions; ++part) {
        unit.part = static_cast<int32_t>(part);
        unit.slot = static_cast<int32_t>(plan.parts.size());
        plan.parts.push_back(unit);
      }
      fold.part = static_cast<int32_t>(plan.parts.size()) - fold.slot;
      plan.folds.push_back(fold);
    }
  }
  return plan;
}

// Whether rows can be copied by 16 bytes.
inline bool CopiesBy16(const KvCache& cache) {
  const auto is_aligned = [](const std::byte* base, int64_t block_bytes, int64_t width) {
    return reinterpret_cast<uintptr_t>(base) % 16 == 0 && block_bytes % 16 == 0 && width % 8 == 0;
  };
  return is_aligned(cache.keys, cache.key_block_bytes, cache.key_dim) &&
         is_aligned(cache.values, cache.value_block_bytes, cache.value_dim);
}

template <int kDims>
void AttendUpTo(device::Stream& stream, const PagedAttentionArgs& args, const Batch& batch) {
  using Kernel = AttentionKernel<kDims>;
  const int64_t room = stream.device().properties().shared_bytes_per_block - Kernel::kWarpsAt;
  constexpr int64_t kWarpBytes = Kernel::kQueryBytes + Kernel::kRunningBytes;
  const AttentionPlan plan = PlanAttention(
      args, batch, std::clamp<int64_t>(room / kWarpBytes, 1, Kernel::kThreads / device::kWarp));
  const int64_t kv_heads = args.cache.kv_heads;
  // Uploaded for each launch, since a stream that waits after a kernel forgets what it was given.
  const auto with = [&](const std::vector<AttentionUnit>& units, float* parts) {
    return AttentionArgsOnDevice{.attention = args,
                                 .sinks = args.sinks.empty() ? nullptr : stream.Upload(args.sinks),
                                 .sequences = stream.Upload(batch.sequences),
                                 .blocks = stream.Upload(batch.blocks),
                                 .units = stream.Upload(std::span<const AttentionUnit>(units)),
                                 .parts = parts,
                                 .copies_by_16 = CopiesBy16(args.cache)};
  };
  if (!plan.parts.empty()) {
    const auto num_parts = static_cast<int64_t>(plan.parts.size());
    auto* const parts =
        reinterpret_cast<float*>(stream.Scratch(num_parts * kv_heads * kPartFloats<kDims> * 4));
    device::Launch<Kernel>(stream,
                           {.blocks = num_parts,
                            .blocks_y = kv_heads,
                            .threads = device::kWarp,
                            .shared_bytes = Kernel::kWarpsAt + Kernel::kQueryBytes},
                           with(plan.parts, parts));
    using Fold = FoldPartsKernel<kDims>;
    const auto num_folds = static_cast<int64_t>(plan.folds.size());
    device::Launch<Fold>(stream,
                         {.blocks = num_folds * Fold::kBlocksOfUnit,
                          .blocks_y = kv_heads,
                          .threads = Fold::kThreads},
                         with(plan.folds, parts));
  }
  if (plan.whole.empty()) return;
  const int64_t of_warp = plan.has_folds ? kWarpBytes : Kernel::kQueryBytes;
  device::Launch<Kernel>(stream,
                         {.blocks = static_cast<int64_t>(plan.whole.size()),
                          .blocks_y = kv_heads,
                          .threads = static_cast<int>(plan.warps) * device::kWarp,
                          .shared_bytes = Kernel::kWarpsAt + plan.warps * of_warp},
                         with(plan.whole, nullptr));
}

inline void PagedAttention(device::Stream& stream, const PagedAttentionArgs& args,
                           const Batch& batch) {
  const int64_t dims = std::max(args.cache.key_dim, args.cache.value_dim);
  if (dims <= 64) return AttendUpTo<64>(stream, args, batch);
  if (dims <= 128) return AttendUpTo<128>(stream, args, batch);
  AttendUpTo<kMaxAttentionDim>(stream, args, batch);
}

inline void StoreKv(device::Stream& stream, const StoreKvArgs& args, const Batch& batch) {
  std::vector<AttentionUnit> units;
  for (size_t i = 0; i < batch.sequences.size(); ++i)
    for (int64_t first = 0; first < batch.sequences[i].num_tokens; first += StoreKvKernel::kTokens)
      units.push_back(
          {.sequence = static_cast<int32_t>(i), .first_row = static_cast<int32_t>(first)});
  if (units.empty()) return;
  device::Launch<StoreKvKernel>(
      stream, {.blocks = static_cast<int64_t>(units.size()), .threads = StoreKvKernel::kThreads},
      {.store = args,
       .sequences = stream.Upload(batch.sequences),
       .blocks = stream.Upload(batch.blocks),
       .units = stream.Upload(std::span<const AttentionUnit>(units))});
}

}  // namespace wideload::compute::cuda
