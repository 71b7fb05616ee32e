// Paged attention on sixteen lanes. Keys are walked stripe by stripe, in steps of up to sixteen
// within each block; a query's arithmetic is the same whether it comes alone (decode) or with
// others (prefill), which only share the widened keys and values. Included after one of the vec
// headers; internal to the including translation unit.
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

// One step of up to sixteen cached positions in fp32: elements d .. d + 15 of position j begin at
// StepOffset(d, j), so that what a loop reads at once lies together. Places that hold no position
// of this pass are zero and were not read.
struct KeyStep {
  alignas(64) float keys[kLanes * kPaddedHeadDim];
  alignas(
      64) float values[kLanes * kPaddedHeadDim];  // unless values are the beginning of their keys
};

// d: a multiple of kLanes.
inline int64_t StepOffset(int64_t d, int64_t j) { return (d + j) * kLanes; }

inline void WidenRow(const uint16_t* row, int64_t width, int64_t j, float* step) {
  int64_t d = 0;
  for (; d + 4 * kLanes <= width; d += 4 * kLanes) {
    WIDELOAD_UNROLL
    for (int c = 0; c < 4; ++c)
      Store(step + StepOffset(d + c * kLanes, j), LoadBf16(row + d + c * kLanes));
  }
  for (; d < width; d += kLanes) Store(step + StepOffset(d, j), LoadUpTo(row + d, width - d));
}

// Lanes [begin, end) of a step hold positions that a query sees.
struct Seen {
  int64_t begin;
  int64_t end;
};

// Where the cached rows of a step lie, each part in one piece.
struct StepBytes {
  const std::byte* keys;
  int64_t key_bytes;
  const std::byte* values;
  int64_t value_bytes;
};

// The block that a position lies in.
inline int64_t BlockOf(const AttentionArgs& args, int64_t position) {
  return args.blocks[position / args.block_tokens / args.num_parts];
}

inline StepBytes BytesOf(const AttentionArgs& args, int64_t first, int64_t width) {
  const int64_t block = BlockOf(args, first);
  const int64_t offset = first % args.block_tokens;
  const int64_t key = args.key_dim * 2;
  const int64_t value = args.value_dim * 2;
  StepBytes bytes = {.keys = args.keys + block * args.key_block_bytes + offset * key,
                     .key_bytes = width * key,
                     .values = nullptr,
                     .value_bytes = 0};
  if (args.values == nullptr) return bytes;
  bytes.values = args.values + block * args.value_block_bytes + offset * value;
  bytes.value_bytes = width * value;
  return bytes;
}

// Part i of n of a step's lines is to be fetched: in one go all of them would hold up what is
// computed meanwhile.
inline void PrefetchPart(const StepBytes& step, int64_t i, int64_t n) {
  constexpr int64_t kLine = 64;
  const int64_t key_lines = (step.key_bytes + kLine - 1) / kLine;
  const int64_t lines = key_lines + (step.value_bytes + kLine - 1) / kLine;
  for (int64_t l = lines * i / n; l < lines * (i + 1) / n; ++l) {
    PrefetchLineToL2(l < key_lines ? step.keys + l * kLine : step.values + (l - key_lines) * kLine);
  }
}

void LoadStep(const AttentionArgs& args, int64_t first, Seen seen, KeyStep& step) {
  const StepBytes bytes = BytesOf(args, first, kLanes);
  const auto* keys = reinterpret_cast<const uint16_t*>(bytes.keys);
  for (int64_t j = seen.begin; j < seen.end; ++j)
    WidenRow(keys + j * args.key_dim, args.key_dim, j, step.keys);
  for (int64_t j = 0; j < kLanes; ++j) {
    if (j >= seen.begin && j < seen.end) continue;
    for (int64_t d = 0; d < args.key_dim; d += kLanes) Store(step.keys + StepOffset(d, j), Zero());
  }
  if (args.values == nullptr) return;
  const auto* values = reinterpret_cast<const uint16_t*>(bytes.values);
  for (int64_t j = seen.begin; j < seen.end; ++j)
    WidenRow(values + j * args.value_dim, args.value_dim, j, step.values);
}

// Adds the products of elements [d, d + 16) to `some`, of which `count` count. kQueries share each
// load of a key; `key` is of the first of kKeys.
template <int kQueries, int kKeys>
inline void AddProducts(const float* const* queries, int64_t d, int64_t count, const float* key,
                        Vec (&some)[kQueries][kKeys]) {
  Vec a[kQueries];
  WIDELOAD_UNROLL
  for (int q = 0; q < kQueries; ++q) a[q] = LoadUpTo(queries[q] + d, count);
  WIDELOAD_UNROLL
  for (int j = 0; j < kKeys; ++j) {
    const Vec b = Load(key + j * kLanes);
    WIDELOAD_UNROLL
    for (int q = 0; q < kQueries; ++q) some[q][j] = Fma(a[q], b, some[q][j]);
  }
}

// sums[q * kLanes + j] = queries[q] . keys[j], each still sixteen partial sums: those of the
// elements whose index mod 16 is the lane.
template <int kQueries>
inline void PartialScores(const float* const* queries, int64_t head_dim, const float* keys,
                          Vec* sums) {
  constexpr int kKeys = kDotsAtOnce / kQueries;
  for (int64_t first = 0; first < kLanes; first += kKeys) {
    Vec some[kQueries][kKeys];
    WIDELOAD_UNROLL
    for (int i = 0; i < kQueries * kKeys; ++i) some[i / kKeys][i % kKeys] = Zero();
    int64_t d = 0;
    for (; d + kLanes <= head_dim; d += kLanes)
      AddProducts<kQueries, kKeys>(queries, d, kLanes, keys + StepOffset(d, first), some);
    if (d < head_dim)
      AddProducts<kQueries, kKeys>(queries, d, head_dim - d, keys + StepOffset(d, first), some);
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

// weights of kQueries in a row become scores.
template <int kQueries>
inline void Score(const AttentionArgs& args, const KeyStep& step, const Query* queries,
                  Taken* taken) {
  const float* q[kQueries];
  for (int i = 0; i < kQueries; ++i) q[i] = queries[taken[i].query].q;
  Vec sums[kQueries * kLanes];
  PartialScores<kQueries>(q, args.key_dim, step.keys, sums);
  for (int i = 0; i < kQueries; ++i)
    Store(taken[i].weights, Mul(SumEachOf16(sums + i * kLanes), Set1(args.scale)));
}

// Scores become weights, and the query's running softmax takes them.
inline void Weigh(SoftmaxPart& part, Taken& taken) {
  const Vec scores = Load(taken.weights);
  const Vec lowest = Set1(-__builtin_inff());
  const Vec visible = Select(taken.seen.begin, lowest, Select(taken.seen.end, scores, lowest));
  const float step_largest = MaxLanes(visible);
  taken.shrink = 1;  // exp of what the largest score grew by, exactly 1 where it did not
  if (step_largest > part.largest) {
    taken.shrink = part.total == 0 ? 0.0F : FirstLane(Exp(Set1(part.largest - step_largest)));
    part.largest = step_largest;
  }
  const Vec exps = Exp(Sub(scores, Set1(part.largest)));
  const Vec terms = Select(taken.seen.begin, Zero(), Select(taken.seen.end, exps, Zero()));
  Store(taken.weights, terms);
  part.total = part.total * taken.shrink + SumLanes(terms);
}

// out = out * shrink + sum over j of what is seen, in order, of weights[j] * values[j], for kChunks
// runs of sixteen elements from d on, of kQueries in a row that see the same and share each load of
// a value. `out` is that of its part.
template <int kQueries, int kChunks>
inline void AddChunks(const Taken* taken, const float* values, int64_t d, SoftmaxPart* parts) {
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
    Vec w[kQueries];
    WIDELOAD_UNROLL
    for (int q = 0; q < kQueries; ++q) w[q] = Set1(taken[q].weights[j]);
    WIDELOAD_UNROLL
    for (int c = 0; c < kChunks; ++c) {
      const Vec value = Load(values + StepOffset(d + c * kLanes, j));
      WIDELOAD_UNROLL
      for (int q = 0; q < kQueries; ++q) sums[q][c] = Fma(w[q], value, sums[q][c]);
    }
  }
  WIDELOAD_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    WIDELOAD_UNROLL
    for (int c = 0; c < kChunks; ++c) Store(at[q] + c * kLanes, sums[q][c]);
  }
}

template <int kQueries>
void AddValues(const Taken* taken, const float* values, int64_t width, SoftmaxPart* parts) {
  constexpr int kMost = kSumsAtOnce / kQueries;
  int64_t d = 0;
  for (; d + kMost * kLanes <= width; d += kMost * kLanes)
    AddChunks<kQueries, kMost>(taken, values, d, parts);
  for (; d < width; d += kLanes) AddChunks<kQueries, 1>(taken, values, d, parts);
}

// Those of the queries that see any of a step, and the step after it.
struct StepWork {
  Taken taken[kQueriesAtOnce];
  int64_t count;
  StepBytes next;
};

inline bool SeeTheSame(const Taken& a, const Taken& b) {
  return a.seen.begin == b.seen.begin && a.seen.end == b.seen.end;
}

// Takes the keys of a step into the running softmax of queries: of all of them the scores, then the
// weights, then the values, so that the chain of one query's weights is not waited for. The next
// step's lines come meanwhile. parts: of each query.
void TakeStep(const AttentionArgs& args, const KeyStep& step, StepWork& work, const Query* queries,
              SoftmaxPart* parts) {
  const int64_t count = work.count;
  for (int64_t i = 0; i < count;) {
    const int64_t taken = Least(count - i, 2);
    if (taken == 2) {
      Score<2>(args, step, queries, work.taken + i);
    } else {
      Score<1>(args, step, queries, work.taken + i);
    }
    for (const int64_t end = i + taken; i < end; ++i) PrefetchPart(work.next, i, 2 * count);
  }
  for (int64_t i = 0; i < count; ++i) Weigh(parts[work.taken[i].query], work.taken[i]);
  const float* values = args.values == nullptr ? step.keys : step.values;
  const int64_t width = Padded(args.value_dim);
  for (int64_t i = 0; i < count;) {
    const int64_t taken = i + 1 < count && SeeTheSame(work.taken[i], work.taken[i + 1]) ? 2 : 1;
    if (taken == 2) {
      AddValues<2>(work.taken + i, values, width, parts);
    } else {
      AddValues<1>(work.taken + i, values, width, parts);
    }
    for (const int64_t end = i + taken; i < end; ++i) PrefetchPart(work.next, count + i, 2 * count);
  }
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
bool AttendStripe(const AttentionArgs& args, const QueryGroup& group, int64_t stripe, KeyStep& step,
                  SoftmaxPart* parts) {
  const int64_t bt = args.block_tokens;
  const int64_t start = NextOfStripe(group.first / bt, stripe) * bt;
  const auto width_at = [&](int64_t first) { return Least(bt - first % bt, kLanes); };
  const bool is_empty = start > group.last && (stripe != 0 || args.sinks == nullptr);
  for (int64_t i = 0; i < group.size; ++i)
    StartPart(parts[i], stripe == 0 ? group.queries[i].sink : nullptr,
              is_empty ? 0 : Padded(args.value_dim));
  StepWork work;
  for (int64_t first = start; first <= group.last;) {
    const int64_t width = width_at(first);
    if (first + width > group.first)
      LoadStep(args, first, SeenOf(group.first, group.last, first, width), step);
    const int64_t next = NextStep(args, first, width);
    work.next = next <= group.last ? BytesOf(args, next, width_at(next)) : StepBytes{};
    work.count = 0;
    for (int64_t i = 0; i < group.size; ++i) {
      const Seen seen = SeenOf(group.queries[i].first, group.queries[i].last, first, width);
      if (seen.begin >= seen.end) continue;
      work.taken[work.count].seen = seen;
      work.taken[work.count++].query = i;
    }
    TakeStep(args, step, work, group.queries, parts);
    first = next;
  }
  return !is_empty;
}

void AttendTogether(const AttentionArgs& args, const QueryGroup& group) {
  KeyStep step;
  alignas(64) float out[kFoldDepth * kQueriesAtOnce * kPaddedHeadDim];
  SoftmaxPart parts[kFoldDepth * kQueriesAtOnce];
  const int64_t width = Padded(args.value_dim);
  for (int64_t i = 0; i < kFoldDepth * kQueriesAtOnce; ++i) parts[i].out = out + i * width;
  const int64_t num_stripes = kStripes / args.num_parts;
  bool has_keys[kFoldDepth];
  for (int64_t i = 0; i < num_stripes; ++i) {
    const int64_t stripe = args.part + args.num_parts * FoldPlace(i, num_stripes);
    int64_t level = FoldLevel(i);
    has_keys[level] = AttendStripe(args, group, stripe, step, parts + level * kQueriesAtOnce);
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
