// Paged attention on sixteen lanes. Keys are walked stripe by stripe, in steps of up to sixteen
// within each block; a query's arithmetic is the same whether it comes alone (decode) or with
// others (prefill), which only share the widened keys and values.
//
// Blocking: a step has as many keys as a register has lanes, for its softmax. Tiles of kTileQueries
// queries x the keys, or x the runs of values, that make kDotsAtOnce or kSumsAtOnce sums fill the
// registers: at least 8, since a fused multiply-add takes 4 cycles and 2 begin in each. What a tile
// loads, it uses at least twice: 10 loads for 16 multiply-adds, of which as many begin in a cycle.
// A step of 128-wide heads is 8 KiB in the cache, and 16 KiB once widened, so that both stay in L1
// with the queries of a tile. Eight queries' sums over the lanes are as many operations as a third
// of their multiply-adds with keys: half of them are made before a tile leaves the registers.
// Few queries wait for memory about as long as they compute, so each step fetches the next one.
// Included after one of the vec headers; internal to the including translation unit.
#pragma once

#include "compute/cpu/attention_fold_impl.h"
#include "compute/cpu/rows_impl.h"
#include "compute/kernels.h"

namespace wideload::compute {
namespace {

constexpr int64_t kQueriesAtOnce = 32;  // (row, head) pairs that share one pass over the cache

// One (row, head) pair.
struct Query {
  const float* q;
  std::byte* y;
  const float* sink;  // null: none
  int64_t first;      // positions it sees
  int64_t last;
};

// Lanes [begin, end) of a step hold positions that a query sees.
struct Seen {
  int64_t begin;
  int64_t end;
};

// Where the rows of a step lie in the cache.
struct StepPlace {
  const uint16_t* keys;
  const uint16_t* values;
};

// The block that a position lies in.
inline int64_t BlockOf(const AttentionArgs& args, int64_t position) {
  return args.blocks[position / args.block_tokens / args.num_parts];
}

inline StepPlace PlaceOf(const AttentionArgs& args, int64_t first) {
  const int64_t block = BlockOf(args, first);
  const int64_t offset = first % args.block_tokens;
  const auto rows = [&](const std::byte* part, int64_t block_bytes, int64_t width) {
    return reinterpret_cast<const uint16_t*>(part + block * block_bytes) + offset * width;
  };
  const uint16_t* keys = rows(args.keys, args.key_block_bytes, args.key_dim);
  if (args.values == nullptr) return {.keys = keys, .values = keys};
  return {.keys = keys, .values = rows(args.values, args.value_block_bytes, args.value_dim)};
}

// The lines of the next step, fetched in pairs while this one is computed, one of its keys and one
// of its values (where there are none: of the two halves of its keys): as evenly as can be, since
// the processor has few that can be under way at once, and waits at the next one.
class NextLines {
 public:
  NextLines() = default;
  NextLines(const AttentionArgs& args, const StepPlace& place, int64_t rows)
      : at_(reinterpret_cast<const std::byte*>(place.keys)) {
    int64_t bytes = 2 * rows * args.key_dim;
    if (args.values == nullptr) {
      bytes = (bytes / 2 + kLineBytes - 1) / kLineBytes * kLineBytes;
      to_other_ = bytes;
    } else {
      to_other_ = reinterpret_cast<const std::byte*>(place.values) - at_;
      if (args.value_dim > args.key_dim) bytes = 2 * rows * args.value_dim;
    }
    last_ = at_ + bytes - 1;
  }
  // After the last pair, that pair again, which costs next to nothing.
  [[gnu::always_inline]] void FetchPair() {
    PrefetchLine(at_);
    PrefetchLine(at_ + to_other_);
    at_ += kLineBytes;
    at_ = at_ < last_ ? at_ : last_;
  }
  // As many lines as call `i` of many reads of this step, which are kHalves halves of lines: keys
  // and values are as many, so that both have been fetched when both have been read.
  template <int kHalves>
  [[gnu::always_inline]] void FetchFor(int64_t i) {
    if constexpr (kHalves >= 4) {
      WIDELOAD_UNROLL
      for (int pair = 0; pair < (kHalves + 3) / 4; ++pair) FetchPair();
    } else {
      if (i % (4 / kHalves) == 0) FetchPair();
    }
  }

 private:
  static constexpr int64_t kLineBytes = 64;
  const std::byte* at_ = nullptr;
  int64_t to_other_ = 0;
  const std::byte* last_ = nullptr;
};

// Keys or values of a step as they are cached: widened where they are used, once for the queries of
// a tile, while multiply-adds go on.
struct CachedRows {
  static constexpr bool kFetches = true;
  const uint16_t* first;
  int64_t stride;  // elements from row to row

  Vec At(int64_t j, int64_t d) const { return LoadBf16Mixed(first + j * stride + d); }
  Vec UpTo(int64_t j, int64_t d, int64_t count) const {
    return LoadUpToMixed(first + j * stride + d, count);
  }
};

// The same widened, for more queries than a tile has: elements d .. d + 15 of row j begin at
// Offset(d, j), so that what a loop reads at once lies together. Zeros where rows end, up to a
// whole register.
struct WidenedRows {
  static constexpr bool kFetches = false;  // there is time for that elsewhere
  const float* first;

  // d: a multiple of kLanes.
  static int64_t Offset(int64_t d, int64_t j) { return (d + j) * kLanes; }
  Vec At(int64_t j, int64_t d) const { return Load(first + Offset(d, j)); }
  Vec UpTo(int64_t j, int64_t d, int64_t) const { return At(j, d); }
};

// Room for a step of widened keys and values.
struct WidenedStep {
  alignas(64) float keys[kLanes * kPaddedHeadDim];
  alignas(64) float values[kLanes * kPaddedHeadDim];
};

void WidenRows(const CachedRows& rows, Seen seen, int64_t width, float* out) {
  for (int64_t j = seen.begin; j < seen.end; ++j) {
    int64_t d = 0;
    for (; d + kLanes <= width; d += kLanes) Store(out + WidenedRows::Offset(d, j), rows.At(j, d));
    if (d < width) Store(out + WidenedRows::Offset(d, j), rows.UpTo(j, d, width - d));
  }
}

// Of one query with the keys of a step.
using FoldedScores = float[8 * kLanes];

// Adds the products of elements [d, d + 16) of keys[0 .. kKeys), of which `count` count, to `some`.
// kQueries share each load of a key, and kKeys that of a query.
template <int kQueries, int kKeys, class Rows>
inline void AddProducts(const float* const* queries, const Rows& rows, const int64_t (&keys)[kKeys],
                        int64_t d, int64_t count, Vec (&some)[kQueries][kKeys]) {
  Vec key[kKeys];
  WIDELOAD_UNROLL
  for (int j = 0; j < kKeys; ++j)
    key[j] = count >= kLanes ? rows.At(keys[j], d) : rows.UpTo(keys[j], d, count);
  WIDELOAD_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    const Vec a = LoadShared(queries[q] + d);
    WIDELOAD_UNROLL
    for (int j = 0; j < kKeys; ++j) some[q][j] = Fma(a, key[j], some[q][j]);
  }
}

// queries[q] . keys[j], each still eight partial sums, at folded[q][8 * j]: FoldRows of the sums of
// the elements whose index mod 16 is the (mixed) lane. What stands for a key outside of `seen`
// means nothing.
template <int kQueries, int kKeys, class Rows>
inline void PartialScores(const float* const* queries, const Rows& rows, Seen seen,
                          int64_t head_dim, NextLines& lines, FoldedScores* folded) {
  NextLines next = lines;  // in registers
  for (int64_t first = 0; first < kLanes; first += kKeys) {
    int64_t keys[kKeys];
    for (int j = 0; j < kKeys; ++j)
      keys[j] = first + j < seen.begin ? seen.begin : Least(first + j, seen.end - 1);
    Vec some[kQueries][kKeys];
    WIDELOAD_UNROLL
    for (int i = 0; i < kQueries * kKeys; ++i) some[i / kKeys][i % kKeys] = Zero();
    int64_t d = 0;
    for (; d + 2 * kLanes <= head_dim; d += 2 * kLanes) {
      if constexpr (Rows::kFetches) next.template FetchFor<2 * kKeys>(d / (2 * kLanes));
      AddProducts<kQueries, kKeys>(queries, rows, keys, d, kLanes, some);
      AddProducts<kQueries, kKeys>(queries, rows, keys, d + kLanes, kLanes, some);
    }
    for (; d < head_dim; d += kLanes)
      AddProducts<kQueries, kKeys>(queries, rows, keys, d, head_dim - d, some);
    WIDELOAD_UNROLL
    for (int q = 0; q < kQueries; ++q) FoldRows<kKeys>(some[q], folded[q] + 8 * first);
  }
  lines = next;
}

// What one query makes of a step.
struct Taken {
  alignas(64) float weights[kLanes];  // first the scores, then exp(score - largest), 0 if not seen
  float shrink;                       // what its sums so far are multiplied by
  Seen seen;
  int64_t query;
};

// The highest power of two of keys that kQueries can be multiplied with at once.
constexpr int KeysAtOnce(int queries) {
  int keys = 1;
  while (2 * keys * queries <= kDotsAtOnce) keys *= 2;
  return keys;
}

// weights of `count` <= kQueries in a row become scores.
template <int kQueries, class Rows>
inline void Score(const AttentionArgs& args, const Rows& rows, Seen seen, const Query* queries,
                  int64_t count, NextLines& next, Taken* taken) {
  if (count == kQueries) {
    const float* q[kQueries];
    for (int i = 0; i < kQueries; ++i) q[i] = queries[taken[i].query].q;
    alignas(64) FoldedScores folded[kQueries];
    PartialScores<kQueries, KeysAtOnce(kQueries)>(q, rows, seen, args.key_dim, next, folded);
    for (int i = 0; i < kQueries; ++i) {
      if constexpr (!Rows::kFetches) next.FetchPair();
      Store(taken[i].weights, Mul(SumEachOf16Folded(folded[i]), Set1(args.scale)));
    }
  } else if constexpr (kQueries > 1) {
    Score<kQueries - 1>(args, rows, seen, queries, count, next, taken);
  }
}

// Scores become weights, and the query's running softmax takes them.
[[gnu::always_inline]] inline void Weigh(SoftmaxPart& part, Taken& taken) {
  const Vec scores = Load(taken.weights);
  const bool sees_all = taken.seen.begin == 0 && taken.seen.end == kLanes;
  const auto where_seen = [&](Vec a, Vec other) {
    if (sees_all) return a;
    return Select(taken.seen.begin, other, Select(taken.seen.end, a, other));
  };
  const Vec visible = where_seen(scores, Set1(-__builtin_inff()));
  taken.shrink = 1;  // exp of what the largest score grew by, exactly 1 where it did not
  if (AnyGreater(visible, Set1(part.largest))) {
    const float step_largest = MaxLanes(visible);
    if (step_largest > part.largest) {  // not where a NaN has won
      taken.shrink = part.total == 0 ? 0.0F : FirstLane(Exp(Set1(part.largest - step_largest)));
      part.largest = step_largest;
    }
  }
  const Vec terms = where_seen(Exp(Sub(scores, Set1(part.largest))), Zero());
  Store(taken.weights, terms);
  part.total = part.total * taken.shrink + SumLanes(terms);
}

// out = out * shrink + sum over j of what is seen, in order, of weights[j] * values[j], for kChunks
// runs of sixteen elements from d on, of which `count` count, of kQueries in a row that see the
// same and share each load of a value. `out` is that of its part.
template <int kQueries, int kChunks, class Rows>
inline void AddChunks(const Taken* taken, const Rows& rows, int64_t d, int64_t count,
                      NextLines& lines, SoftmaxPart* parts) {
  NextLines next = lines;  // in registers
  Vec sums[kQueries][kChunks];
  float* at[kQueries];
  WIDELOAD_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    at[q] = parts[taken[q].query].out + d;
    const Vec shrink = Set1(taken[q].shrink);
    WIDELOAD_UNROLL
    for (int c = 0; c < kChunks; ++c) sums[q][c] = Mul(Load(at[q] + c * kLanes), shrink);
  }
  for (int64_t j = taken[0].seen.begin; j < taken[0].seen.end; ++j) {
    Vec value[kChunks];
    if constexpr (Rows::kFetches) next.template FetchFor<kChunks>(j);
    WIDELOAD_UNROLL
    for (int c = 0; c < kChunks; ++c)
      value[c] = count >= kChunks * kLanes ? rows.At(j, d + c * kLanes) : rows.UpTo(j, d, count);
    WIDELOAD_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      const Vec w = Set1(taken[q].weights[j]);
      WIDELOAD_UNROLL
      for (int c = 0; c < kChunks; ++c) sums[q][c] = Fma(w, value[c], sums[q][c]);
    }
  }
  WIDELOAD_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    WIDELOAD_UNROLL
    for (int c = 0; c < kChunks; ++c) Store(at[q] + c * kLanes, sums[q][c]);
  }
  lines = next;
}

// Of `count` <= kQueries in a row that see the same.
template <int kQueries, class Rows>
void AddValues(const Taken* taken, const Rows& rows, int64_t width, int64_t count, NextLines& next,
               SoftmaxPart* parts) {
  if (count == kQueries) {
    constexpr int kMost = kSumsAtOnce / kQueries;
    int64_t d = 0;
    for (; d + kMost * kLanes <= width; d += kMost * kLanes)
      AddChunks<kQueries, kMost>(taken, rows, d, kMost * kLanes, next, parts);
    for (; d < width; d += kLanes) AddChunks<kQueries, 1>(taken, rows, d, width - d, next, parts);
  } else if constexpr (kQueries > 1) {
    AddValues<kQueries - 1>(taken, rows, width, count, next, parts);
  }
}

// Those of the queries that see any of a step.
struct StepWork {
  int64_t count;
  Seen seen;  // by any of them
  NextLines next;
  Taken taken[kQueriesAtOnce];
};

// How many of the next queries, kTileQueries at most, see the same as the first of them.
inline int64_t CountAlike(const Taken* taken, int64_t left) {
  int64_t count = 1;
  const Seen& seen = taken[0].seen;
  while (count < Least(left, kTileQueries) && taken[count].seen.begin == seen.begin &&
         taken[count].seen.end == seen.end)
    ++count;
  return count;
}

// Takes the keys of a step into the running softmax of queries: of all of them the scores, then the
// weights, then the values, so that the chain of one query's weights is not waited for. parts: of
// each query.
template <class Rows>
void TakeRows(const AttentionArgs& args, const Rows& keys, const Rows& values, StepWork& work,
              const Query* queries, SoftmaxPart* parts) {
  NextLines next = work.next;
  const int64_t count = work.count;
  for (int64_t i = 0; i < count; i += kTileQueries)
    Score<kTileQueries>(args, keys, work.seen, queries, Least(count - i, kTileQueries), next,
                        work.taken + i);
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (!Rows::kFetches) next.FetchPair();
    Weigh(parts[work.taken[i].query], work.taken[i]);
  }
  for (int64_t i = 0; i < count;) {
    const int64_t alike = CountAlike(work.taken + i, count - i);
    AddValues<kTileQueries>(work.taken + i, values, args.value_dim, alike, next, parts);
    i += alike;
  }
}

void TakeStep(const AttentionArgs& args, const StepPlace& place, StepWork& work,
              const Query* queries, SoftmaxPart* parts) {
  const CachedRows keys = {place.keys, args.key_dim};
  const CachedRows values = {place.values, args.values == nullptr ? args.key_dim : args.value_dim};
  if (work.count <= kCachedQueries) return TakeRows(args, keys, values, work, queries, parts);
  WidenedStep step;
  WidenRows(keys, work.seen, args.key_dim, step.keys);
  WidenRows(values, work.seen, args.value_dim, step.values);
  TakeRows(args, WidenedRows{step.keys}, WidenedRows{step.values}, work, queries, parts);
}

// The part of the step of `width` positions from `first` on that positions [begin, end] lie in.
inline Seen SeenOf(int64_t begin, int64_t end, int64_t first, int64_t width) {
  return {begin > first ? begin - first : 0, Least(width, end + 1 - first)};
}

// Queries that share a pass over the cache, in ascending order of their positions, and the
// positions that any of them sees, and those that all of them see.
struct QueryGroup {
  Query queries[kQueriesAtOnce];
  int64_t size = 0;
  int64_t first = 0;
  int64_t last = 0;
  int64_t first_of_all = 0;
  int64_t last_of_all = 0;
};

// The first block of a stripe that is not before `block`.
inline int64_t NextOfStripe(int64_t block, int64_t stripe) {
  return block + (stripe - block % kStripes + kStripes) % kStripes;
}

// The first position of the step after the one of `width` positions from `first` on.
inline int64_t NextStep(const AttentionArgs& args, int64_t first, int64_t width) {
  const int64_t next = first + width;
  return next % args.block_tokens == 0 ? next + (kStripes - 1) * args.block_tokens : next;
}

// The queries that see any of the step of `width` positions from `first` on.
inline void ChooseQueries(const QueryGroup& group, int64_t first, int64_t width, StepWork& work) {
  work.count = 0;
  work.seen = SeenOf(group.first, group.last, first, width);
  if (first >= group.first_of_all && first + width - 1 <= group.last_of_all) {
    work.count = group.size;
    for (int64_t i = 0; i < group.size; ++i) {
      work.taken[i].seen = work.seen;
      work.taken[i].query = i;
    }
    return;
  }
  for (int64_t i = 0; i < group.size; ++i) {
    const Query& query = group.queries[i];
    const Seen seen = SeenOf(query.first, query.last, first, width);
    if (seen.begin >= seen.end) continue;
    work.taken[work.count].seen = seen;
    work.taken[work.count++].query = i;
  }
}

// Each query's softmax over the keys of one stripe; returns whether there is anything in any. Steps
// are counted from the beginning of its blocks, whatever is seen of them.
bool AttendStripe(const AttentionArgs& args, const QueryGroup& group, int64_t stripe,
                  SoftmaxPart* parts) {
  const int64_t bt = args.block_tokens;
  const int64_t start = NextOfStripe(group.first / bt, stripe) * bt;
  const bool is_empty = start > group.last && (stripe != 0 || args.sinks == nullptr);
  for (int64_t i = 0; i < group.size; ++i)
    StartPart(parts[i], stripe == 0 ? group.queries[i].sink : nullptr,
              is_empty ? 0 : Padded(args.value_dim));
  if (start > group.last) return !is_empty;
  StepWork work;
  StepPlace place = PlaceOf(args, start);
  for (int64_t first = start; first <= group.last;) {
    const int64_t width = Least(bt - first % bt, kLanes);
    const int64_t next = NextStep(args, first, width);
    const StepPlace next_place = next <= group.last ? PlaceOf(args, next) : place;
    work.next = NextLines(args, next_place, width);
    ChooseQueries(group, first, width, work);
    if (work.count > 0) TakeStep(args, place, work, group.queries, parts);
    first = next;
    place = next_place;
  }
  return !is_empty;
}

void AttendTogether(const AttentionArgs& args, QueryGroup& group) {
  alignas(64) float queries[kQueriesAtOnce * kPaddedHeadDim];
  const int64_t query_width = Padded(args.key_dim);
  for (int64_t i = 0; i < group.size; ++i) {
    float* const mixed = queries + i * query_width;
    for (int64_t d = 0; d < args.key_dim; d += kLanes)
      Store(mixed + d, Mixed(LoadUpTo(group.queries[i].q + d, args.key_dim - d)));
    group.queries[i].q = mixed;
  }
  alignas(64) float out[kFoldDepth * kQueriesAtOnce * kPaddedHeadDim];
  SoftmaxPart parts[kFoldDepth * kQueriesAtOnce];
  const int64_t width = Padded(args.value_dim);
  for (int64_t i = 0; i < kFoldDepth * kQueriesAtOnce; ++i) parts[i].out = out + i * width;
  const int64_t num_stripes = kStripes / args.num_parts;
  bool has_keys[kFoldDepth];
  for (int64_t i = 0; i < num_stripes; ++i) {
    const int64_t stripe = args.part + args.num_parts * FoldPlace(i, num_stripes);
    int64_t level = FoldLevel(i);
    has_keys[level] = AttendStripe(args, group, stripe, parts + level * kQueriesAtOnce);
    for (int64_t j = i; j % 2 == 1; j /= 2, --level) {
      SoftmaxPart* const own = parts + level * kQueriesAtOnce;
      if (has_keys[level]) AddParts(own - kQueriesAtOnce, own, group.size, width);
      has_keys[level - 1] = has_keys[level - 1] || has_keys[level];
    }
  }
  for (int64_t i = 0; i < group.size; ++i) {
    std::byte* const y = group.queries[i].y;
    if (args.is_partial)
      StorePart(parts[i], args.value_dim, reinterpret_cast<float*>(y));
    else
      FinishPart(parts[i], args.value_dim, reinterpret_cast<uint16_t*>(y));
  }
}

inline int64_t FirstVisible(const AttentionArgs& args, int64_t position) {
  const int64_t in_window = args.window > 0 ? position + 1 - args.window : 0;
  const int64_t in_chunk = args.chunk > 0 ? position / args.chunk * args.chunk : 0;
  return in_window > in_chunk ? in_window : in_chunk;
}

void Attention(const AttentionArgs& args) {
  QueryGroup group;
  const int64_t y_bytes = args.is_partial ? (args.value_dim + 2) * 4 : args.value_dim * 2;
  for (int64_t r = 0; r < args.num_rows; ++r) {
    for (int64_t h = 0; h < args.heads; ++h) {
      const int64_t position = args.first_position + r;
      const Query query = {.q = Row<float>(args.q, r) + h * args.key_dim,
                           .y = Row<std::byte>(args.y, r) + h * y_bytes,
                           .sink = args.sinks != nullptr ? args.sinks + h : nullptr,
                           .first = FirstVisible(args, position),
                           .last = position};
      if (group.size == 0) {
        group.first = group.first_of_all = query.first;
        group.last_of_all = query.last;
      }
      group.first = Least(group.first, query.first);
      group.first_of_all = -Least(-group.first_of_all, -query.first);
      group.last = query.last;
      group.queries[group.size++] = query;
      if (group.size < kQueriesAtOnce) continue;
      AttendTogether(args, group);
      group.size = 0;
    }
  }
  if (group.size > 0) AttendTogether(args, group);
}

}  // namespace
}  // namespace wideload::compute
