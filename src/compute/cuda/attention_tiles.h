// What the kernels of attention share: places in the cache, rows, tiles, softmaxes and how two of
// them become one.
//
// A warp has 16 rows, each a query head of a token, of one KV head. Positions come in tiles, with
// an online softmax in fp32; every 256 positions, counted from position 0, this part of the softmax
// is closed and folded into the running one. So a part is the same function of its row and
// positions whoever computes it: a warp that has all parts of its rows (prefill), a warp or four
// that have one (decode); and folding them in order gives the same bits. Products with weights of 0
// leave a sum's bits, so that a row does not depend on what the others of its fragment see.
#pragma once

#include "compute/cuda/kernels.h"
#include "compute/cuda/row_kernels.h"
#include "device/kernel.h"

namespace wideload::compute::cuda {

// Rows of a warp: of the left side of a product.
inline constexpr int kFragmentRows = 16;
// Positions of a part, counted from position 0.
inline constexpr int kPartPositions = 256;
// Positions of a tile: its scores are registers, with the sums of values of a head of up to kDims.
template <int kDims>
inline constexpr int kTilePositions = kDims > 128 ? 32 : 64;

// What a block computes.
struct AttentionUnit {
  int32_t sequence = 0;
  int32_t first_row = 0;  // of the sequence's tokens x heads
  int32_t part = 0;       // the only one, or kAllParts; of a fold: how many there are
  int32_t slot = 0;       // where its part is left, or kOnlyPart; the first of those to fold
};
// AttentionUnit::part of a block that has all of them.
inline constexpr int32_t kAllParts = -1;
inline constexpr int32_t kOnlyPart = -1;  // it goes to y

// A block and an offset in it as one number, -1 for places that are not read.
WIDELOAD_DEVICE int32_t CellOf(const KvCache& cache, const int32_t* blocks, int64_t position) {
  const auto tokens = static_cast<int32_t>(cache.block_tokens);
  const auto at = static_cast<int32_t>(position);
  const int32_t index = at / tokens;
  return blocks[index] << 8 | (at - index * tokens);
}
static_assert(kMaxBlockTokens <= 256 && kMaxCacheBlocks <= int64_t{1} << 23);

// Where a cell's row of `width` elements lies, in keys or values.
WIDELOAD_DEVICE std::byte* RowOfCell(const KvCache& cache, std::byte* base, int64_t block_bytes,
                                     int64_t width, int32_t cell, int64_t kv_head) {
  return base + (cell >> 8) * block_bytes +
         (kv_head * cache.block_tokens + (cell & 255)) * width * 2;
}

// What every kernel of attention is started with; pointers are to memory of the device.
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

// The first position that `position` sees.
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

// The score of a place that is not seen.
constexpr float kMinusInfinity = -__builtin_huge_valf();
// Scores are in powers of two.
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

// Nothing was seen yet.
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

// Four numbers that are moved at once.
struct alignas(16) Float4 {
  float values[4];
};

// A part in memory: the lanes' `out`, a tile after the other, then of each row the largest score
// and the sum.
template <int kDims>
inline constexpr int64_t kPartFloats = int64_t{kFragmentRows} * kDims + 2 * kFragmentRows;

// The positions that a block is about.
struct AttentionPlace {
  const int32_t* blocks;  // of the sequence
  int32_t first;          // positions that any of its rows sees
  int32_t last;
};

// Of a block that has `num_rows` rows of a sequence from the unit's first on.
WIDELOAD_DEVICE AttentionPlace PlaceOf(const AttentionArgsOnDevice& args, const AttentionUnit& unit,
                                       int64_t num_rows) {
  const PagedAttentionArgs& attention = args.attention;
  const Sequence& sequence = args.sequences[unit.sequence];
  int64_t end_row = unit.first_row + num_rows;
  const int64_t rows_of_all = sequence.num_tokens * attention.heads;
  if (end_row > rows_of_all) end_row = rows_of_all;
  return {args.blocks + sequence.first_block,
          static_cast<int32_t>(FirstVisibleOf(
              attention, sequence.start_position + unit.first_row / attention.heads)),
          static_cast<int32_t>(sequence.start_position + (end_row - 1) / attention.heads)};
}

// The cell of a position that the block sees, or -1.
WIDELOAD_DEVICE int32_t VisibleCell(const AttentionArgsOnDevice& args, const AttentionPlace& place,
                                    int32_t position) {
  const bool is_seen = position >= place.first && position <= place.last;
  return is_seen ? CellOf(args.attention.cache, place.blocks, position) : -1;
}

// What is done with a tile. kDims: of the head, at most; it alone chooses between the instances, so
// that the rows of a model are all of one of them. Rows of a tile in shared memory are 16 bytes
// longer than they need be, which puts the eight rows of an ldmatrix into different banks.
template <int kDims>
struct AttentionTiles {
  using Args = AttentionArgsOnDevice;
  static constexpr int kTile = kTilePositions<kDims>;
  static constexpr int kTilesOfPart = kPartPositions / kTile;
  static constexpr int kPitch = 2 * kDims + 16;
  static constexpr int kTileBytes = kTile * kPitch;
  static constexpr int kSteps = kTile / 16;
  // Whether registers have room for queries; those of heads above 128 are in shared memory.
  static constexpr bool kKeepsQueries = kDims <= 128;
  static constexpr int kQueryUnroll = kKeepsQueries ? kDims / 16 : 1;
  static constexpr int64_t kQueryBytes = kKeepsQueries ? 0 : int64_t{kDims} * kFragmentRows * 2;

  // A lane's share of the left side of a product.
  struct alignas(16) Fragment {
    uint32_t values[4];
  };
  // The queries of a warp, 16 dimensions each: here, or this lane's at a distance of a warp's.
  struct Queries {
    Fragment fragments[kQueryUnroll];
    Fragment* in_shared;
    // Dimensions 16 k to 16 k + 15.
    WIDELOAD_DEVICE Fragment& Of(int k) {
      if constexpr (kKeepsQueries)
        return fragments[k];
      else
        return in_shared[k * device::kWarp];
    }
  };

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
      queries.Of(k) = fragment;
    }
  }

  // Threads that copy together.
  struct Threads {
    int index;
    int count;
  };
  // Begins the copies of the keys of a tile, whose cells these are, to a stage.
  static WIDELOAD_DEVICE void CopyKeys(const Args& args, const int32_t* cells, Threads threads,
                                       std::byte* stage) {
    const KvCache& cache = args.attention.cache;
    CopyRows(args, cells, threads, {cache.keys, cache.key_block_bytes, cache.key_dim}, stage);
  }
  // The same of its values.
  static WIDELOAD_DEVICE void CopyValues(const Args& args, const int32_t* cells, Threads threads,
                                         std::byte* stage) {
    const KvCache& cache = args.attention.cache;
    CopyRows(args, cells, threads, {cache.values, cache.value_block_bytes, cache.value_dim}, stage);
  }

  // Keys or values.
  struct CacheSide {
    std::byte* base;
    int64_t block_bytes;
    int64_t width;
  };
  // Begins the copies of a tile, whose cells these are. Lanes of a warp copy neighbouring pieces of
  // 16 bytes. Zeros where a place is not seen, and up to a multiple of 16 dimensions.
  static WIDELOAD_DEVICE void CopyRows(const Args& args, const int32_t* cells, Threads threads,
                                       const CacheSide& side, std::byte* stage) {
    constexpr int kPieces = kDims / 8;
    const int num_pieces = static_cast<int>((side.width + 15) / 16 * 2);
    for (int i = threads.index; i < kTile * kPieces; i += threads.count) {
      const int piece = i % kPieces;
      if (piece >= num_pieces) continue;
      const int32_t cell = cells[i / kPieces];
      const std::byte* const row = RowOfCell(args.attention.cache, side.base, side.block_bytes,
                                             side.width, cell < 0 ? 0 : cell, device::BlockY());
      std::byte* const to = stage + i / kPieces * kPitch + piece * 16;
      const int count = cell < 0 ? 0 : static_cast<int>(side.width) - 8 * piece;
      if (args.copies_by_16) {
        device::CopyAsync16(to, count > 0 ? row + piece * 16 : side.base, count > 0 ? 16 : 0);
        continue;
      }
      for (int e = 0; e < 8; ++e)
        reinterpret_cast<uint16_t*>(to)[e] =
            e < count ? reinterpret_cast<const uint16_t*>(row)[8 * piece + e] : uint16_t{0};
    }
  }

  // Steps of 16 positions of a tile up to the last that the rows of the warp see; 0: they see none.
  static WIDELOAD_DEVICE int NumSteps(const AttentionRows& rows, int tile) {
    const int first = tile * kTile;
    if (rows.end <= first || rows.begin >= first + kTile) return 0;
    return rows.end - first >= kTile ? kSteps : (rows.end - first + 15) / 16;
  }

  // scores = q k^T of the first num_steps * 16 positions.
  static WIDELOAD_DEVICE void Score(const PagedAttentionArgs& args, Queries& queries,
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
      const Fragment query = queries.Of(k);
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

  // The largest score of row r.
  static WIDELOAD_DEVICE float LargestScore(const float (&scores)[kTile / 8][4], int r) {
    float largest = kMinusInfinity;
    WIDELOAD_UNROLL
    for (int i = 0; i < kTile / 8; ++i)
      largest = device::Largest(largest, device::Largest(scores[i][2 * r], scores[i][2 * r + 1]));
    largest = device::Largest(largest, device::ShuffleXor(largest, 1));
    return device::Largest(largest, device::ShuffleXor(largest, 2));
  }

  // A row's largest score before and with a tile: what its sums so far are multiplied by, and what
  // the tile's scores are compared with. Of a row that has seen nothing yet every weight is 0.
  struct Growth {
    float shrink;
    float base;
  };
  // `largest` becomes what it is with the tile.
  static WIDELOAD_DEVICE Growth Grow(float& largest, float of_tile) {
    const float before = largest;
    largest = device::Largest(of_tile, before);
    const float base = largest == kMinusInfinity ? 0 : largest;
    return {device::Exp2(before - base), base};
  }

  // Scores of row r become weights. Returns the sum of those that values are multiplied with: they
  // are rounded, and add up to 1.
  static WIDELOAD_DEVICE float Weigh(const float (&scores)[kTile / 8][4], int r, float base,
                                     uint32_t (&weights)[kTile / 8][2]) {
    float total = 0;
    WIDELOAD_UNROLL
    for (int i = 0; i < kTile / 8; ++i) {
      const uint32_t pair = device::PackBf16(device::Exp2(scores[i][2 * r] - base),
                                             device::Exp2(scores[i][2 * r + 1] - base));
      weights[i][r] = pair;
      total += device::FloatOfBits(pair << 16) + device::FloatOfBits(pair & 0xffff0000U);
    }
    total += device::ShuffleXor(total, 1);
    return total + device::ShuffleXor(total, 2);
  }

  // The weights of 16 positions as the left side of a product.
  static WIDELOAD_DEVICE Fragment FragmentOf(const uint32_t (&weights)[kTile / 8][2], int step) {
    return {{weights[2 * step][0], weights[2 * step][1], weights[2 * step + 1][0],
             weights[2 * step + 1][1]}};
  }

  // out += weights of a step x values, of kPairs pairs of tiles of 8 dimensions from pair
  // `first_pair` on.
  template <int kPairs>
  static WIDELOAD_DEVICE void AddValues(const PagedAttentionArgs& args, const std::byte* stage,
                                        int step, const Fragment& weights, int first_pair,
                                        float (&out)[2 * kPairs][4]) {
    const int lane = device::Lane();
    const std::byte* const from =
        stage + (16 * step + lane % 16) * kPitch + lane / 16 * 16 + first_pair * 32;
    WIDELOAD_UNROLL
    for (int pair = 0; pair < kPairs; ++pair) {
      if (16 * (first_pair + pair) >= args.cache.value_dim) break;
      uint32_t values[4];
      device::LoadMatrices4Transposed(values, from + pair * 32);
      device::MultiplyMatrices(out[2 * pair], weights.values, {values[0], values[1]});
      device::MultiplyMatrices(out[2 * pair + 1], weights.values, {values[2], values[3]});
    }
  }

  // Where the block leaves its part.
  static WIDELOAD_DEVICE float* PartOf(const Args& args) {
    const int64_t slot = args.units[device::Block()].slot;
    return args.parts +
           (slot * args.attention.cache.kv_heads + device::BlockY()) * kPartFloats<kDims>;
  }
  // Leaves kTiles tiles of 8 dimensions from `first` on.
  template <int kTiles>
  static WIDELOAD_DEVICE void LeaveSums(float* to, int first, const float (&out)[kTiles][4]) {
    WIDELOAD_UNROLL
    for (int i = 0; i < kTiles; ++i) {
      Float4 sums;
      for (int e = 0; e < 4; ++e) sums.values[e] = out[i][e];
      reinterpret_cast<Float4*>(to)[(first + i) * device::kWarp + device::Lane()] = sums;
    }
  }
  // Leaves the largest scores and the sums of weights, once for each row.
  static WIDELOAD_DEVICE void LeaveTotals(float* to, const float (&largest)[2],
                                          const float (&total)[2]) {
    if (device::Lane() % 4 != 0) return;
    float* const rows = to + kDims * kFragmentRows + device::Lane() / 4;
    for (int r = 0; r < 2; ++r) {
      rows[8 * r] = largest[r];
      rows[8 * r + kFragmentRows] = total[r];
    }
  }
};

}  // namespace wideload::compute::cuda
