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

// One step of up to sixteen cached positions in fp32. Places that hold no position of this pass are
// zero and were not read.
struct KeyStep {
  float keys[kLanes * kPaddedHeadDim];
  float values[kLanes * kPaddedHeadDim];  // unless values are the beginning of their keys
};

// Elements from one row of a step to the next.
inline int64_t Padded(int64_t width) { return (width + kLanes - 1) / kLanes * kLanes; }

inline void WidenRow(const uint16_t* row, int64_t width, float* out) {
  for (int64_t d = 0; d < width; d += kLanes) Store(out + d, LoadUpTo(row + d, width - d));
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
    PrefetchLine(l < key_lines ? step.keys + l * kLine : step.values + (l - key_lines) * kLine);
  }
}

void LoadStep(const AttentionArgs& args, int64_t first, Seen seen, KeyStep& step) {
  const int64_t stride = Padded(args.key_dim);
  const int64_t block = args.blocks[first / args.block_tokens];
  const int64_t offset = first % args.block_tokens;
  const auto* keys = reinterpret_cast<const uint16_t*>(args.keys + block * args.key_block_bytes) +
                     offset * args.key_dim;
  for (int64_t j = seen.begin; j < seen.end; ++j) {
    WidenRow(keys + j * args.key_dim, args.key_dim, step.keys + j * stride);
  }
  for (int64_t j = 0; j < kLanes; ++j) {
    if (j >= seen.begin && j < seen.end) continue;
    for (int64_t d = 0; d < stride; d += kLanes) Store(step.keys + j * stride + d, Zero());
  }
  if (args.values == nullptr) return;
  const auto* values =
      reinterpret_cast<const uint16_t*>(args.values + block * args.value_block_bytes) +
      offset * args.value_dim;
  for (int64_t j = seen.begin; j < seen.end; ++j) {
    WidenRow(values + j * args.value_dim, args.value_dim, step.values + j * Padded(args.value_dim));
  }
}

// Lane j: q . keys[j]; the partial sums of a dot product lie in its elements' index mod 16.
inline Vec Scores(const float* q, int64_t head_dim, const float* keys, int64_t stride) {
  Vec sums[kLanes];
  for (int64_t first = 0; first < kLanes; first += kKeysAtOnce) {
    Vec some[kKeysAtOnce];
    WIDELOAD_UNROLL
    for (int64_t j = 0; j < kKeysAtOnce; ++j) some[j] = Zero();
    for (int64_t d = 0; d < head_dim; d += kLanes) {
      const Vec a = LoadUpTo(q + d, head_dim - d);
      WIDELOAD_UNROLL
      for (int64_t j = 0; j < kKeysAtOnce; ++j) {
        some[j] = Fma(a, Load(keys + (first + j) * stride + d), some[j]);
      }
    }
    WIDELOAD_UNROLL
    for (int64_t j = 0; j < kKeysAtOnce; ++j) sums[first + j] = some[j];
  }
  return SumEachOf16(sums);
}

// Values of a step: `at` is of its first position, rows `stride` apart.
struct StepValues {
  const float* at;
  int64_t stride;
};

// out = out * shrink + sum over j of [begin, end), in order, of weights[j] * values[j], for kChunks
// runs of sixteen elements from d on.
template <int kChunks>
void AddValues(float* out, float shrink, const float* weights, StepValues values, Seen seen,
               int64_t d) {
  Vec sums[kChunks];
  WIDELOAD_UNROLL
  for (int c = 0; c < kChunks; ++c) sums[c] = Mul(Load(out + d + c * kLanes), Set1(shrink));
  for (int64_t j = seen.begin; j < seen.end; ++j) {
    const Vec w = Set1(weights[j]);
    WIDELOAD_UNROLL
    for (int c = 0; c < kChunks; ++c) {
      sums[c] = Fma(w, Load(values.at + j * values.stride + d + c * kLanes), sums[c]);
    }
  }
  WIDELOAD_UNROLL
  for (int c = 0; c < kChunks; ++c) Store(out + d + c * kLanes, sums[c]);
}

// Takes the keys of the step that a query sees into its running softmax.
void TakeStep(const AttentionArgs& args, const KeyStep& step, Seen seen, Query& query, float* out) {
  const Vec scores =
      Mul(Scores(query.q, args.key_dim, step.keys, Padded(args.key_dim)), Set1(args.scale));
  const Vec lowest = Set1(-__builtin_inff());
  const Vec visible = Select(seen.begin, lowest, Select(seen.end, scores, lowest));
  const float step_largest = MaxLanes(visible);
  float shrink = 1;  // exp of what the largest score grew by, exactly 1 where it did not
  if (step_largest > query.largest) {
    shrink = FirstLane(Exp(Set1(query.largest - step_largest)));
    query.largest = step_largest;
  }
  const Vec exps = Exp(Sub(scores, Set1(query.largest)));
  const Vec terms = Select(seen.begin, Zero(), Select(seen.end, exps, Zero()));
  float weights[kLanes];
  Store(weights, terms);
  query.total = query.total * shrink + SumLanes(terms);
  const StepValues values = args.values == nullptr
                                ? StepValues{step.keys, Padded(args.key_dim)}
                                : StepValues{step.values, Padded(args.value_dim)};
  const int64_t width = Padded(args.value_dim);
  int64_t d = 0;
  for (; d + 8 * kLanes <= width; d += 8 * kLanes) {
    AddValues<8>(out, shrink, weights, values, seen, d);
  }
  for (; d + 4 * kLanes <= width; d += 4 * kLanes) {
    AddValues<4>(out, shrink, weights, values, seen, d);
  }
  for (; d < width; d += kLanes) AddValues<1>(out, shrink, weights, values, seen, d);
}

// The part of the step of `width` positions from `first` on that positions [begin, end] lie in.
inline Seen SeenOf(int64_t begin, int64_t end, int64_t first, int64_t width) {
  return {begin > first ? begin - first : 0, Least(width, end + 1 - first)};
}

void AttendTogether(const AttentionArgs& args, Query* queries, int64_t num_queries) {
  KeyStep step;
  float out[kQueriesAtOnce * kPaddedHeadDim];
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
    StepBytes next = {};
    if (first + width <= last) {
      const int64_t left = args.block_tokens - (first + width) % args.block_tokens;
      next = BytesOf(args, first + width, Least(left, kLanes));
    }
    for (int64_t i = 0; i < num_queries; ++i) {
      PrefetchPart(next, i, num_queries);
      const Seen seen = SeenOf(queries[i].first, queries[i].last, first, width);
      if (seen.begin < seen.end) TakeStep(args, step, seen, queries[i], out + i * stride);
    }
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
