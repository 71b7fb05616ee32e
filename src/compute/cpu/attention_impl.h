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

// One step of up to sixteen cached positions in fp32. Places that hold no position of this pass are
// zero and were not read.
struct KeyStep {
  float keys[kLanes * kPaddedHeadDim];
  float values[kLanes * kPaddedHeadDim];  // unless values are the beginning of their keys
};

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
    PrefetchLine(l < key_lines ? step.keys + l * kLine : step.values + (l - key_lines) * kLine);
  }
}

void LoadStep(const AttentionArgs& args, int64_t first, Seen seen, KeyStep& step) {
  const int64_t stride = Padded(args.key_dim);
  const int64_t block = BlockOf(args, first);
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
void TakeStep(const AttentionArgs& args, const KeyStep& step, Seen seen, const float* q,
              SoftmaxPart& part) {
  const Vec scores =
      Mul(Scores(q, args.key_dim, step.keys, Padded(args.key_dim)), Set1(args.scale));
  const Vec lowest = Set1(-__builtin_inff());
  const Vec visible = Select(seen.begin, lowest, Select(seen.end, scores, lowest));
  const float step_largest = MaxLanes(visible);
  float shrink = 1;  // exp of what the largest score grew by, exactly 1 where it did not
  if (step_largest > part.largest) {
    shrink = FirstLane(Exp(Set1(part.largest - step_largest)));
    part.largest = step_largest;
  }
  const Vec exps = Exp(Sub(scores, Set1(part.largest)));
  const Vec terms = Select(seen.begin, Zero(), Select(seen.end, exps, Zero()));
  float weights[kLanes];
  Store(weights, terms);
  part.total = part.total * shrink + SumLanes(terms);
  const StepValues values = args.values == nullptr
                                ? StepValues{step.keys, Padded(args.key_dim)}
                                : StepValues{step.values, Padded(args.value_dim)};
  const int64_t width = Padded(args.value_dim);
  int64_t d = 0;
  for (; d + 8 * kLanes <= width; d += 8 * kLanes) {
    AddValues<8>(part.out, shrink, weights, values, seen, d);
  }
  for (; d + 4 * kLanes <= width; d += 4 * kLanes) {
    AddValues<4>(part.out, shrink, weights, values, seen, d);
  }
  for (; d < width; d += kLanes) AddValues<1>(part.out, shrink, weights, values, seen, d);
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

// Each query's softmax over the keys of one stripe. Steps are counted from the beginning of its
// blocks, whatever is seen of them.
void AttendStripe(const AttentionArgs& args, const QueryGroup& group, int64_t stripe, KeyStep& step,
                  SoftmaxPart* parts) {
  const int64_t bt = args.block_tokens;
  const int64_t start = NextOfStripe(group.first / bt, stripe) * bt;
  const auto width_at = [&](int64_t first) { return Least(bt - first % bt, kLanes); };
  for (int64_t i = 0; i < group.size; ++i) {
    const float* sink = stripe == 0 ? group.queries[i].sink : nullptr;
    StartPart(parts[i], sink, start <= group.last || sink != nullptr ? Padded(args.value_dim) : 0);
  }
  for (int64_t first = start; first <= group.last;) {
    const int64_t width = width_at(first);
    if (first + width > group.first)
      LoadStep(args, first, SeenOf(group.first, group.last, first, width), step);
    const int64_t next = NextStep(args, first, width);
    const StepBytes coming = next <= group.last ? BytesOf(args, next, width_at(next)) : StepBytes{};
    for (int64_t i = 0; i < group.size; ++i) {
      const Query& query = group.queries[i];
      PrefetchPart(coming, i, group.size);
      const Seen seen = SeenOf(query.first, query.last, first, width);
      if (seen.begin < seen.end) TakeStep(args, step, seen, query.q, parts[i]);
    }
    first = next;
  }
}

void AttendTogether(const AttentionArgs& args, const QueryGroup& group) {
  KeyStep step;
  float out[kFoldDepth * kQueriesAtOnce * kPaddedHeadDim];
  SoftmaxPart parts[kFoldDepth * kQueriesAtOnce];
  const int64_t width = Padded(args.value_dim);
  for (int64_t i = 0; i < kFoldDepth * kQueriesAtOnce; ++i) parts[i].out = out + i * width;
  const int64_t num_stripes = kStripes / args.num_parts;
  for (int64_t i = 0; i < num_stripes; ++i) {
    const int64_t stripe = args.part + args.num_parts * FoldPlace(i, num_stripes);
    SoftmaxPart* own = parts + FoldLevel(i) * kQueriesAtOnce;
    AttendStripe(args, group, stripe, step, own);
    for (int64_t j = i; j % 2 == 1; j /= 2, own -= kQueriesAtOnce)
      for (int64_t q = 0; q < group.size; ++q) AddPart(own[q - kQueriesAtOnce], own[q], width);
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
