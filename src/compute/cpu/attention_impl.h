// Paged attention on sixteen lanes. Keys are walked in steps of up to sixteen within each block,
// counted from position 0; a query's arithmetic is the same whether it comes alone (decode) or with
// others (prefill), which only share the widened keys and values. Included after one of the vec
// headers; internal to the including translation unit.
#pragma once

#include "compute/cpu/rows_impl.h"
#include "compute/kernels.h"

namespace wideload::compute {
namespace {

constexpr int64_t kQueriesAtOnce = 32;  // (row, head) pairs that share one pass over the cache
constexpr int64_t kPaddedHeadDim = kMaxHeadDim + kLanes;

// One (row, head) pair on its way: out is the sum of exp(score - largest) * value so far.
struct Query {
  const float* q;
  uint16_t* y;
  const float* sink;  // null: none
  int64_t first;      // positions it sees
  int64_t last;
  float largest;
  float total;
};

// One step of up to sixteen cached positions in fp32: elements d .. d + 15 of position j begin at
// StepOffset(d, j), so that what a loop reads at once lies together. Places that hold no position
// of this pass are zero and were not read.
struct KeyStep {
  alignas(64) float keys[kLanes * kPaddedHeadDim];
  alignas(
      64) float values[kLanes * kPaddedHeadDim];  // unless values are the beginning of their keys
};

// Elements from one row of a step to the next.
inline int64_t Padded(int64_t width) { return (width + kLanes - 1) / kLanes * kLanes; }

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

inline StepBytes BytesOf(const AttentionArgs& args, int64_t first, int64_t width) {
  const int64_t block = args.blocks[first / args.block_tokens];
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
inline void Weigh(Query& query, Taken& taken) {
  const Vec scores = Load(taken.weights);
  const Vec lowest = Set1(-__builtin_inff());
  const Vec visible = Select(taken.seen.begin, lowest, Select(taken.seen.end, scores, lowest));
  const float step_largest = MaxLanes(visible);
  taken.shrink = 1;  // exp of what the largest score grew by, exactly 1 where it did not
  if (step_largest > query.largest) {
    taken.shrink = FirstLane(Exp(Set1(query.largest - step_largest)));
    query.largest = step_largest;
  }
  const Vec exps = Exp(Sub(scores, Set1(query.largest)));
  const Vec terms = Select(taken.seen.begin, Zero(), Select(taken.seen.end, exps, Zero()));
  Store(taken.weights, terms);
  query.total = query.total * taken.shrink + SumLanes(terms);
}

// out = out * shrink + sum over j of what is seen, in order, of weights[j] * values[j], for kChunks
// runs of sixteen elements from d on, of kQueries in a row that see the same and share each load of
// a value. `out` is of query 0.
template <int kQueries, int kChunks>
inline void AddChunks(const Taken* taken, const float* values, int64_t d, float* out,
                      int64_t width) {
  Vec sums[kQueries][kChunks];
  float* at[kQueries];
  WIDELOAD_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    at[q] = out + taken[q].query * width + d;
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
void AddValues(const Taken* taken, const float* values, float* out, int64_t width) {
  constexpr int kMost = kSumsAtOnce / kQueries;
  int64_t d = 0;
  for (; d + kMost * kLanes <= width; d += kMost * kLanes)
    AddChunks<kQueries, kMost>(taken, values, d, out, width);
  for (; d < width; d += kLanes) AddChunks<kQueries, 1>(taken, values, d, out, width);
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
// weights, then the values, so that the chain of one query's weights is not waited for. out: rows
// of Padded(value_dim). The next step's lines come meanwhile.
void TakeStep(const AttentionArgs& args, const KeyStep& step, StepWork& work, Query* queries,
              float* out) {
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
  for (int64_t i = 0; i < count; ++i) Weigh(queries[work.taken[i].query], work.taken[i]);
  const float* values = args.values == nullptr ? step.keys : step.values;
  const int64_t width = Padded(args.value_dim);
  for (int64_t i = 0; i < count;) {
    const int64_t taken = i + 1 < count && SeeTheSame(work.taken[i], work.taken[i + 1]) ? 2 : 1;
    if (taken == 2) {
      AddValues<2>(work.taken + i, values, out, width);
    } else {
      AddValues<1>(work.taken + i, values, out, width);
    }
    for (const int64_t end = i + taken; i < end; ++i) PrefetchPart(work.next, count + i, 2 * count);
  }
}

// The part of the step of `width` positions from `first` on that positions [begin, end] lie in.
inline Seen SeenOf(int64_t begin, int64_t end, int64_t first, int64_t width) {
  return {begin > first ? begin - first : 0, Least(width, end + 1 - first)};
}

void AttendTogether(const AttentionArgs& args, Query* queries, int64_t num_queries) {
  KeyStep step;
  StepWork work;
  alignas(64) float out[kQueriesAtOnce * kPaddedHeadDim];
  const int64_t stride = Padded(args.value_dim);
  int64_t last = 0;
  int64_t begin = queries[0].first;
  for (int64_t i = 0; i < num_queries; ++i) {
    Query& query = queries[i];
    query.largest = query.sink != nullptr ? *query.sink : -__builtin_inff();
    query.total = query.sink != nullptr ? 1.0F : 0.0F;
    if (query.last > last) last = query.last;
    begin = Least(begin, query.first);
    for (int64_t d = 0; d < stride; d += kLanes) Store(out + i * stride + d, Zero());
  }
  // Steps are counted from position 0, whatever is seen of them.
  for (int64_t first = begin / args.block_tokens * args.block_tokens; first <= last;) {
    const int64_t left_in_block = args.block_tokens - first % args.block_tokens;
    const int64_t width = Least(left_in_block, kLanes);
    if (first + width > begin) LoadStep(args, first, SeenOf(begin, last, first, width), step);
    work.next = {};
    if (first + width <= last) {
      const int64_t left = args.block_tokens - (first + width) % args.block_tokens;
      work.next = BytesOf(args, first + width, Least(left, kLanes));
    }
    work.count = 0;
    for (int64_t i = 0; i < num_queries; ++i) {
      const Seen seen = SeenOf(queries[i].first, queries[i].last, first, width);
      if (seen.begin >= seen.end) continue;
      work.taken[work.count].seen = seen;
      work.taken[work.count++].query = i;
    }
    TakeStep(args, step, work, queries, out);
    first += width;
  }
  for (int64_t i = 0; i < num_queries; ++i) {
    const Vec total = Set1(queries[i].total);
    for (int64_t d = 0; d < args.value_dim; d += kLanes) {
      StoreUpTo(queries[i].y + d, Div(Load(out + i * stride + d), total), args.value_dim - d);
    }
  }
}

inline int64_t FirstVisible(const AttentionArgs& args, int64_t position) {
  const int64_t in_window = args.window > 0 ? position + 1 - args.window : 0;
  const int64_t in_chunk = args.chunk > 0 ? position / args.chunk * args.chunk : 0;
  return in_window > in_chunk ? in_window : in_chunk;
}

void Attention(const AttentionArgs& args) {
  Query queries[kQueriesAtOnce];
  int64_t waiting = 0;
  for (int64_t r = 0; r < args.num_rows; ++r) {
    for (int64_t h = 0; h < args.heads; ++h) {
      const int64_t position = args.first_position + r;
      queries[waiting] = {.q = Row<float>(args.q, r) + h * args.key_dim,
                          .y = Row<uint16_t>(args.y, r) + h * args.value_dim,
                          .sink = args.sinks != nullptr ? args.sinks + h : nullptr,
                          .first = FirstVisible(args, position),
                          .last = position,
                          .largest = 0,
                          .total = 0};
      if (++waiting < kQueriesAtOnce) continue;
      AttendTogether(args, queries, waiting);
      waiting = 0;
    }
  }
  if (waiting > 0) AttendTogether(args, queries, waiting);
}

}  // namespace
}  // namespace wideload::compute
