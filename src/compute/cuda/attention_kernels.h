// The paged KV cache, and attention over it: see attention_tiles.h for how it is cut.
#pragma once

#include "compute/cuda/attention_tiles.h"

namespace wideload::compute::cuda {

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

// All parts of 16 rows by each of up to eight warps, which share the tiles; or one part by one
// warp.
//
// Shared memory: two stages of a tile of keys and of values, 69,632 bytes of heads of 128, so that
// 32 KiB are in flight while a tile is computed, by each of three blocks of one warp on a
// multiprocessor in decode. Then the cells of two parts, and of each warp that folds parts its
// running sums (8 KiB), which are needed every 256 positions only. Registers: 139, 204, 204 of
// heads of 64, 128, 256.
template <int kDims>
struct AttentionKernel {
  using Args = AttentionArgsOnDevice;
  using Tiles = AttentionTiles<kDims>;
  using Part = SoftmaxPartOf<kDims / 8>;
  using Queries = typename Tiles::Queries;
  static constexpr int kThreads = 256;
  static constexpr int kTile = Tiles::kTile;

  static constexpr int64_t kCellsAt = int64_t{4} * Tiles::kTileBytes;
  static constexpr int64_t kWarpsAt = kCellsAt + int64_t{2} * kPartPositions * 4;
  static constexpr int64_t kRunningBytes = int64_t{kDims} * kFragmentRows * 4;

  static WIDELOAD_DEVICE void Run(const Args& args) {
    const AttentionUnit unit = args.units[device::Block()];
    const AttentionPlace place =
        PlaceOf(args, unit, device::NumThreads() / device::kWarp * kFragmentRows);
    int32_t begin = place.first;
    int32_t end = place.last + 1;
    if (unit.part != kAllParts) {
      if (begin < unit.part * kPartPositions) begin = unit.part * kPartPositions;
      if (end > (unit.part + 1) * kPartPositions) end = (unit.part + 1) * kPartPositions;
    }
    const AttentionRows rows =
        RowsOfLane(args.attention, args.sequences[unit.sequence],
                   unit.first_row + device::Warp() * kFragmentRows, device::BlockY());
    Walk(args, rows, unit.slot == kOnlyPart, place, begin / kTile, (end - 1) / kTile);
  }

 private:
  static WIDELOAD_DEVICE std::byte* Stage(int tile, bool is_value) {
    return device::SharedMemory() + (tile % 2 * 2 + (is_value ? 1 : 0)) * Tiles::kTileBytes;
  }

  static WIDELOAD_DEVICE void Walk(const Args& args, const AttentionRows& rows, bool goes_to_y,
                                   const AttentionPlace& place, int first_tile, int last_tile) {
    Queries queries;
    queries.in_shared = OfLane<typename Tiles::Fragment>(false);
    Tiles::LoadQueries(args.attention, rows, queries);
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
      if (tile != last_tile && (tile + 1) % Tiles::kTilesOfPart != 0) continue;
      if (!goes_to_y) {
        Tiles::LeaveSums(Tiles::PartOf(args), 0, part.out);
        return Tiles::LeaveTotals(Tiles::PartOf(args), part.largest, part.total);
      }
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
    std::byte* const warp = device::SharedMemory() + kWarpsAt + device::Warp() * Tiles::kQueryBytes;
    const int64_t warps = device::NumThreads() / device::kWarp;
    std::byte* const running = device::SharedMemory() + kWarpsAt + warps * Tiles::kQueryBytes +
                               device::Warp() * kRunningBytes;
    return reinterpret_cast<T*>(is_running ? running : warp) + device::Lane();
  }

  // The cells of a part's positions, as far as they are seen. All threads of the block.
  static WIDELOAD_DEVICE void FindCells(const Args& args, const AttentionPlace& place, int part) {
    int32_t* const cells = CellsOf(part);
    for (int i = device::Thread(); i < kPartPositions; i += device::NumThreads())
      cells[i] = VisibleCell(args, place, part * kPartPositions + i);
    device::SyncBlock();
  }
  static WIDELOAD_DEVICE int32_t* CellsOf(int part) {
    return reinterpret_cast<int32_t*>(device::SharedMemory() + kCellsAt) +
           part % 2 * kPartPositions;
  }

  // Begins the copies of a tile, by all threads of the block.
  static WIDELOAD_DEVICE void CopyTile(const Args& args, const AttentionPlace& place, int tile,
                                       bool is_first) {
    const int part = tile / Tiles::kTilesOfPart;
    if (is_first || tile % Tiles::kTilesOfPart == 0) FindCells(args, place, part);
    const int32_t* const cells = CellsOf(part) + tile % Tiles::kTilesOfPart * kTile;
    const typename Tiles::Threads threads = {device::Thread(), device::NumThreads()};
    Tiles::CopyKeys(args, cells, threads, Stage(tile, false));
    Tiles::CopyValues(args, cells, threads, Stage(tile, true));
    if (is_first) device::CommitCopies();
  }

  // The part takes the positions of a tile.
  static WIDELOAD_DEVICE void TakeTile(const PagedAttentionArgs& args, const AttentionRows& rows,
                                       Queries& queries, int tile, Part& part) {
    const int num_steps = Tiles::NumSteps(rows, tile);
    if (num_steps == 0) return;
    float scores[kTile / 8][4];
    Tiles::Score(args, queries, Stage(tile, false), num_steps, scores);
    Tiles::Mask(args, rows, tile * kTile, scores);
    uint32_t weights[kTile / 8][2];
    for (int r = 0; r < 2; ++r) {
      const auto growth = Tiles::Grow(part.largest[r], Tiles::LargestScore(scores, r));
      const float total = Tiles::Weigh(scores, r, growth.base, weights);
      part.total[r] = device::MultiplyAdd(part.total[r], growth.shrink, total);
      WIDELOAD_UNROLL
      for (int i = 0; i < kDims / 8; ++i)
        for (int e = 0; e < 2; ++e) part.out[i][2 * r + e] *= growth.shrink;
    }
    WIDELOAD_UNROLL
    for (int step = 0; step < Tiles::kSteps; ++step) {
      if (step >= num_steps) break;
      Tiles::template AddValues<kDims / 16>(args, Stage(tile, true), step,
                                            Tiles::FragmentOf(weights, step), 0, part.out);
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
};

// One part of 16 rows by four warps, where there are so few parts that multiprocessors have one at
// most: each has a tile's scores, then a quarter of the dimensions of all tiles, so that every sum
// is the chain that it is in AttentionKernel. All keys and values of the part are in flight at
// once.
//
// Shared memory of heads of 128: 139,264 bytes of tiles, 9,728 of what the warps tell each other.
// Registers: 80, 127 of heads of 64, 128.
template <int kDims>
struct PartKernel {
  using Args = AttentionArgsOnDevice;
  using Tiles = AttentionTiles<kDims>;
  using Fragment = typename Tiles::Fragment;
  static constexpr int kTile = Tiles::kTile;
  static constexpr int kWarps = Tiles::kTilesOfPart;
  static constexpr int kThreads = kWarps * device::kWarp;
  static constexpr int kPairs = kDims / 16 / kWarps;  // of tiles of 8 dimensions, of a warp
  static_assert(kPairs * kWarps * 16 == kDims && Tiles::kKeepsQueries);

  static constexpr int kCellsAt = 2 * kWarps * Tiles::kTileBytes;
  static constexpr int kWeightsAt = kCellsAt + kPartPositions * 4;
  static constexpr int kLargestAt = kWeightsAt + kWarps * Tiles::kSteps * device::kWarp * 16;
  static constexpr int kTotalsAt = kLargestAt + kWarps * kFragmentRows * 4;
  static constexpr int kSharedBytes = kTotalsAt + kWarps * kFragmentRows * 4;

  static WIDELOAD_DEVICE void Run(const Args& args) {
    const AttentionUnit unit = args.units[device::Block()];
    const PagedAttentionArgs& attention = args.attention;
    BeginCopies(args, PlaceOf(args, unit, kFragmentRows), unit.part);
    const AttentionRows rows =
        RowsOfLane(attention, args.sequences[unit.sequence], unit.first_row, device::BlockY());
    const int first_tile = unit.part * kWarps;
    const int own_tile = first_tile + device::Warp();
    typename Tiles::Queries queries;
    Tiles::LoadQueries(attention, rows, queries);
    float scores[kTile / 8][4];
    device::WaitCopies<1>();
    device::SyncWarp();
    ScoreOwn(attention, rows, queries, own_tile, scores);
    device::SyncBlock();
    float largest[2] = {kMinusInfinity, kMinusInfinity};
    float shrinks[kWarps][2];
    float bases[2] = {};
    WIDELOAD_UNROLL
    for (int warp = 0; warp < kWarps; ++warp) {
      if (Tiles::NumSteps(rows, first_tile + warp) == 0) continue;
      for (int r = 0; r < 2; ++r) {
        const auto growth = Tiles::Grow(largest[r], *OfRow(kLargestAt, warp, r));
        shrinks[warp][r] = growth.shrink;
        if (warp == device::Warp()) bases[r] = growth.base;
      }
    }
    if (Tiles::NumSteps(rows, own_tile) > 0) WeighOwn(scores, bases);
    device::WaitCopies<0>();
    device::SyncBlock();
    float out[2 * kPairs][4] = {};
    float total[2] = {};
    WIDELOAD_UNROLL
    for (int warp = 0; warp < kWarps; ++warp)
      TakeTile(attention, warp, Tiles::NumSteps(rows, first_tile + warp), shrinks[warp], total,
               out);
    if (unit.slot == kOnlyPart) return Finish(args, rows, largest, total, out);
    Tiles::LeaveSums(Tiles::PartOf(args), device::Warp() * 2 * kPairs, out);
    if (device::Warp() == 0) Tiles::LeaveTotals(Tiles::PartOf(args), largest, total);
  }

 private:
  static WIDELOAD_DEVICE std::byte* Stage(int warp, bool is_value) {
    return device::SharedMemory() + (warp + (is_value ? kWarps : 0)) * Tiles::kTileBytes;
  }
  // What a warp tells the others of row r of this lane.
  static WIDELOAD_DEVICE float* OfRow(int at, int warp, int r) {
    return reinterpret_cast<float*>(device::SharedMemory() + at) + warp * kFragmentRows +
           device::Lane() / 4 + 8 * r;
  }
  // The weights of a step of a warp's tile, this lane's.
  static WIDELOAD_DEVICE Fragment* WeightsOf(int warp, int step) {
    return reinterpret_cast<Fragment*>(device::SharedMemory() + kWeightsAt) +
           (warp * Tiles::kSteps + step) * device::kWarp + device::Lane();
  }

  // A warp's own tile, in two groups: keys, values.
  static WIDELOAD_DEVICE void BeginCopies(const Args& args, const AttentionPlace& place, int part) {
    const int warp = device::Warp();
    int32_t* const cells =
        reinterpret_cast<int32_t*>(device::SharedMemory() + kCellsAt) + warp * kTile;
    for (int i = device::Lane(); i < kTile; i += device::kWarp)
      cells[i] = VisibleCell(args, place, part * kPartPositions + warp * kTile + i);
    device::SyncWarp();
    const typename Tiles::Threads threads = {device::Lane(), device::kWarp};
    Tiles::CopyKeys(args, cells, threads, Stage(warp, false));
    device::CommitCopies();
    Tiles::CopyValues(args, cells, threads, Stage(warp, true));
    device::CommitCopies();
  }

  static WIDELOAD_DEVICE void ScoreOwn(const PagedAttentionArgs& args, const AttentionRows& rows,
                                       typename Tiles::Queries& queries, int tile,
                                       float (&scores)[kTile / 8][4]) {
    const int num_steps = Tiles::NumSteps(rows, tile);
    if (num_steps == 0) return;
    Tiles::Score(args, queries, Stage(device::Warp(), false), num_steps, scores);
    Tiles::Mask(args, rows, tile * kTile, scores);
    for (int r = 0; r < 2; ++r) {
      const float largest = Tiles::LargestScore(scores, r);
      if (device::Lane() % 4 == 0) *OfRow(kLargestAt, device::Warp(), r) = largest;
    }
  }

  static WIDELOAD_DEVICE void WeighOwn(const float (&scores)[kTile / 8][4],
                                       const float (&bases)[2]) {
    uint32_t weights[kTile / 8][2];
    for (int r = 0; r < 2; ++r) {
      const float total = Tiles::Weigh(scores, r, bases[r], weights);
      if (device::Lane() % 4 == 0) *OfRow(kTotalsAt, device::Warp(), r) = total;
    }
    WIDELOAD_UNROLL
    for (int step = 0; step < Tiles::kSteps; ++step)
      *WeightsOf(device::Warp(), step) = Tiles::FragmentOf(weights, step);
  }

  // y of this warp's dimensions.
  static WIDELOAD_DEVICE void Finish(const Args& args, const AttentionRows& rows,
                                     const float (&largest)[2], const float (&total)[2],
                                     const float (&out)[2 * kPairs][4]) {
    float all_largest[2];
    float all_total[2];
    StartTotals(args.sinks, rows, all_largest, all_total);
    const FoldFactors factors = FoldTotals(all_largest, all_total, largest, total);
    WIDELOAD_UNROLL
    for (int i = 0; i < 2 * kPairs; ++i) {
      float sums[4];
      for (int e = 0; e < 4; ++e) sums[e] = Fold(factors, e, 0, out[i][e]);
      FinishTile(args.attention, rows, device::Warp() * 2 * kPairs + i, sums, all_total);
    }
  }

  // This warp's dimensions take the tile that `warp` has weighed.
  static WIDELOAD_DEVICE void TakeTile(const PagedAttentionArgs& args, int warp, int num_steps,
                                       const float (&shrinks)[2], float (&total)[2],
                                       float (&out)[2 * kPairs][4]) {
    if (num_steps == 0) return;
    for (int r = 0; r < 2; ++r)
      total[r] = device::MultiplyAdd(total[r], shrinks[r], *OfRow(kTotalsAt, warp, r));
    WIDELOAD_UNROLL
    for (int i = 0; i < 2 * kPairs; ++i)
      for (int e = 0; e < 4; ++e) out[i][e] *= shrinks[e / 2];
    WIDELOAD_UNROLL
    for (int step = 0; step < Tiles::kSteps; ++step) {
      if (step >= num_steps) break;
      const Fragment weights = *WeightsOf(warp, step);
      Tiles::template AddValues<kPairs>(args, Stage(warp, true), step, weights,
                                        device::Warp() * kPairs, out);
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

}  // namespace wideload::compute::cuda
