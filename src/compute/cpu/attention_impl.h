// Paged attention on sixteen lanes. Keys are walked stripe by stripe, in steps of up to sixteen
// within each block; a query's arithmetic is the same whether it comes alone (decode) or with
// others (prefill), which only share the widened keys and values.
//
// Blocking: a step has as many keys as a register has lanes, for its softmax. Tiles of kTileQueries
// queries x the keys, or x the runs of values, that make kDotsAtOnce or kSumsAtOnce sums fill the
// registers: at least 8, since a fused multiply-add takes 4 cycles and 2 begin in each. What a tile
// loads, it uses at least twice: 10 loads for 16 multiply-adds, of which as many begin in a cycle.
// A step of 128-wide heads is 8 KiB in the cache, and 16 KiB once widened, so that both stay in L1
// with the queries of a tile.
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

// The lines of the next step, fetched one by one while this one is computed: as evenly as can be,
// for the processor has few that can be under way at once, and waits at the next one. Into L2:
// loads of this step need those of L1.
class NextLines {
 public:
  NextLines(const AttentionArgs& args, const StepPlace& place, int64_t rows)
      : first_(reinterpret_cast<const std::byte*>(place.keys)),
        at_(first_),
        end_(EndOf(at_, rows * args.key_dim)),
        other_(reinterpret_cast<const std::byte*>(place.values)),
        other_end_(args.values == nullptr ? end_ : EndOf(other_, rows * args.value_dim)) {}
  // Once all are on their way it begins again, which costs next to nothing.
  [[gnu::always_inline]] void Fetch(int count) {
    WIDELOAD_UNROLL
    for (int i = 0; i < count; ++i) {
      PrefetchLineToL2(at_);
      at_ += kLineBytes;
      if (at_ == end_) Turn();
    }
  }

 private:
  static constexpr int64_t kLineBytes = 64;
  // From keys to values or back.
  void Turn() {
    const std::byte* const end = end_;
    end_ = other_end_;
    other_end_ = end;
    at_ = other_;
    other_ = first_;
    first_ = at_;
  }
  static const std::byte* EndOf(const std::byte* first, int64_t elements) {
    return first + (2 * elements + kLineBytes - 1) / kLineBytes * kLineBytes;
  }

  const std::byte* first_;
  const std::byte* at_;
  const std::byte* end_;
  const std::byte* other_;
  const std::byte* other_end_;
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
    const Vec a = Load(queries[q] + d);
    WIDELOAD_UNROLL
    for (int j = 0; j < kKeys; ++j) some[q][j] = Fma(a, key[j], some[q][j]);
  }
}

// sums[q * kLanes + j] = queries[q] . keys[j], each still sixteen partial sums: those of the
// elements whose index mod 16 is the (mixed) lane. What stands for a key outside of `seen` means
// nothing.
template <int kQueries, int kKeys, class Rows>
inline void PartialScores(const float* const* queries, const Rows& rows, Seen seen,
                          int64_t head_dim, NextLines& next, Vec* sums) {
  constexpr int kFetched = !Rows::kFetches ? 0 : kKeys > 2 ? kKeys / 2 : 1;
  for (int64_t first = 0; first < kLanes; first += kKeys) {
    int64_t keys[kKeys];
    for (int j = 0; j < kKeys; ++j)
      keys[j] = first + j < seen.begin ? seen.begin : Least(first + j, seen.end - 1);
    Vec some[kQueries][kKeys];
    WIDELOAD_UNROLL
    for (int i = 0; i < kQueries * kKeys; ++i) some[i / kKeys][i % kKeys] = Zero();
    int64_t d = 0;
    for (; d + 2 * kLanes <= head_dim; d += 2 * kLanes) {
      next.Fetch(kFetched);
      AddProducts<kQueries, kKeys>(queries, rows, keys, d, kLanes, some);
      AddProducts<kQueries, kKeys>(queries, rows, keys, d + kLanes, kLanes, some);
    }
    for (; d < head_dim; d += kLanes)
      AddProducts<kQueries, kKeys>(queries, rows, keys, d, head_dim - d, some);
    WIDELOAD_UNROLL
    for (int i = 0; i < kQueries * kKeys; ++i)
      sums[i / kKeys * kLanes + first + i % kKeys] = some[i / kKeys][i % kKeys];
  }
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
    Vec sums[kQueries * kLanes];
    PartialScores<kQueries, KeysAtOnce(kQueries)>(q, rows, seen, args.key_dim, next, sums);
    for (int i = 0; i < kQueries; ++i) {
      next.Fetch(2);
      Store(taken[i].weights, Mul(SumEachOf16Mixed(sums + i * kLanes), Set1(args.scale)));
    }
  } else if constexpr (kQueries > 1) {
    Score<kQueries - 1>(args, rows, seen, queries, count, next, taken);
  }
}

// Scores become weights, and the query's running softmax takes them.
inline void Weigh(SoftmaxPart& part, Taken& taken) {
  const Vec scores = Load(taken.weights);
  const Vec lowest = Set1(-__builtin_inff());
  const Vec visible = Select(taken.seen.begin, lowest, Select(taken.seen.end, scores, lowest));
  taken.shrink = 1;  // exp of what the largest score grew by, exactly 1 where it did not
  if (AnyGreater(visible, Set1(part.largest))) {
    const float step_largest = MaxLanes(visible);
    if (step_largest > part.largest) {  // not where a NaN has won
      taken.shrink = part.total == 0 ? 0.0F : FirstLane(Exp(Set1(part.largest - step_largest)));
      part.largest = step_largest;
    }
  }
  const Vec exps = Exp(Sub(scores, Set1(part.largest)));
  const Vec terms = Select(taken.seen.begin, Zero(), Select(taken.seen.end, exps, Zero()));
  Store(taken.weights, terms);
  part.total = part.total * taken.shrink + SumLanes(terms);
}

// out = out * shrink + sum over j of what is seen, in order, of weights[j] * values[j], for kChunks
// runs of sixteen elements from d on, of which `count` count, of kQueries in a row that see the
// same and share each load of a value. `out` is that of its part.
template <int kQueries, int kChunks, class Rows>
inline void AddChunks(const Taken* taken, const Rows& rows, int64_t d, int64_t count,
                      NextLines& next, SoftmaxPart* parts) {
  constexpr int kFetched = !Rows::kFetches ? 0 : (kChunks + 1) / 2;
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
    next.Fetch(kFetched);
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
  StepWork(Seen any, const NextLines& after) : seen(any), next(after) {}  // `taken` stays as it is

  int64_t count = 0;
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
    next.Fetch(2);
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

// Queries that share a pass over the cache, and the positions that any of them sees.
struct QueryGroup {
  Query queries[kQueriesAtOnce];
  int64_t size = 0;
  int64_t first = 0;
  int64_t last = 0;
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
  for (int64_t first = start; first <= group.last;) {
    const int64_t width = Least(bt - first % bt, kLanes);
    const int64_t next = NextStep(args, first, width);
    const StepPlace place = PlaceOf(args, first);
    StepWork work(SeenOf(group.first, group.last, first, width),
                  NextLines(args, next <= group.last ? PlaceOf(args, next) : place, width));
    for (int64_t i = 0; i < group.size; ++i) {
      const Seen seen = SeenOf(group.queries[i].first, group.queries[i].last, first, width);
      if (seen.begin >= seen.end) continue;
      work.taken[work.count].seen = seen;
      work.taken[work.count++].query = i;
    }
    if (work.count > 0) TakeStep(args, place, work, group.queries, parts);
    first = next;
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
      group.first = group.size == 0 ? query.first : Least(group.first, query.first);
      group.last = position;
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
