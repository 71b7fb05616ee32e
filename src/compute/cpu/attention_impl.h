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
  int64_t position;
  float largest;
  float total;
};

// One step of up to sixteen cached positions in fp32, rows `stride` apart. Places that hold no
// position of this pass are zero and were not read.
struct KeyStep {
  float keys[kLanes * kPaddedHeadDim];
  float values[kLanes * kPaddedHeadDim];
};

inline void WidenRow(const uint16_t* row, int64_t width, float* out) {
  for (int64_t d = 0; d < width; d += kLanes) Store(out + d, LoadUpTo(row + d, width - d));
}

void LoadStep(const AttentionArgs& args, int64_t first, int64_t count, int64_t stride,
              KeyStep& step) {
  const int64_t block = args.blocks[first / args.block_tokens];
  const int64_t offset = first % args.block_tokens * args.head_dim;
  const auto* keys =
      reinterpret_cast<const uint16_t*>(args.keys + block * args.key_block_bytes) + offset;
  const auto* values =
      reinterpret_cast<const uint16_t*>(args.values + block * args.value_block_bytes) + offset;
  for (int64_t j = 0; j < count; ++j) {
    WidenRow(keys + j * args.head_dim, args.head_dim, step.keys + j * stride);
    WidenRow(values + j * args.head_dim, args.head_dim, step.values + j * stride);
  }
  for (int64_t j = count; j < kLanes; ++j) {
    for (int64_t d = 0; d < stride; d += kLanes) Store(step.keys + j * stride + d, Zero());
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

// out = out * shrink + sum over j < count, in order, of weights[j] * values[j].
template <int kChunks>
void AddValues(float* out, float shrink, const float* weights, const float* values, int64_t count,
               int64_t stride) {
  Vec sums[kChunks];
  WIDELOAD_UNROLL
  for (int c = 0; c < kChunks; ++c) sums[c] = Mul(Load(out + c * kLanes), Set1(shrink));
  for (int64_t j = 0; j < count; ++j) {
    const Vec w = Set1(weights[j]);
    WIDELOAD_UNROLL
    for (int c = 0; c < kChunks; ++c) {
      sums[c] = Fma(w, Load(values + j * stride + c * kLanes), sums[c]);
    }
  }
  WIDELOAD_UNROLL
  for (int c = 0; c < kChunks; ++c) Store(out + c * kLanes, sums[c]);
}

// Takes `count` keys of the step into a query's running softmax.
void TakeStep(const AttentionArgs& args, const KeyStep& step, int64_t count, int64_t stride,
              Query& query, float* out) {
  const Vec scores = Mul(Scores(query.q, args.head_dim, step.keys, stride), Set1(args.scale));
  const Vec seen = Select(count, scores, Set1(-__builtin_inff()));
  const float step_largest = MaxLanes(seen);
  float shrink = 1;  // exp of what the largest score grew by, exactly 1 where it did not
  if (step_largest > query.largest) {
    shrink = FirstLane(Exp(Set1(query.largest - step_largest)));
    query.largest = step_largest;
  }
  const Vec terms = Select(count, Exp(Sub(scores, Set1(query.largest))), Zero());
  float weights[kLanes];
  Store(weights, terms);
  query.total = query.total * shrink + SumLanes(terms);
  int64_t d = 0;
  for (; d + 8 * kLanes <= stride; d += 8 * kLanes) {
    AddValues<8>(out + d, shrink, weights, step.values + d, count, stride);
  }
  for (; d + 4 * kLanes <= stride; d += 4 * kLanes) {
    AddValues<4>(out + d, shrink, weights, step.values + d, count, stride);
  }
  for (; d < stride; d += kLanes) {
    AddValues<1>(out + d, shrink, weights, step.values + d, count, stride);
  }
}

void AttendTogether(const AttentionArgs& args, Query* queries, int64_t num_queries) {
  const int64_t stride = (args.head_dim + kLanes - 1) / kLanes * kLanes;
  KeyStep step;
  float out[kQueriesAtOnce * kPaddedHeadDim];
  int64_t last = 0;  // position of the query that sees most
  for (int64_t i = 0; i < num_queries; ++i) {
    queries[i].largest = -__builtin_inff();
    queries[i].total = 0;
    if (queries[i].position > last) last = queries[i].position;
    for (int64_t d = 0; d < stride; d += kLanes) Store(out + i * stride + d, Zero());
  }
  for (int64_t first = 0; first <= last;) {
    const int64_t left_in_block = args.block_tokens - first % args.block_tokens;
    const int64_t width = Least(left_in_block, kLanes);
    LoadStep(args, first, Least(width, last + 1 - first), stride, step);
    for (int64_t i = 0; i < num_queries; ++i) {
      const int64_t count = Least(width, queries[i].position + 1 - first);
      if (count > 0) TakeStep(args, step, count, stride, queries[i], out + i * stride);
    }
    first += width;
  }
  for (int64_t i = 0; i < num_queries; ++i) {
    const Vec total = Set1(queries[i].total);
    for (int64_t d = 0; d < args.head_dim; d += kLanes) {
      StoreUpTo(queries[i].y + d, Div(Load(out + i * stride + d), total), args.head_dim - d);
    }
  }
}

void Attention(const AttentionArgs& args) {
  Query queries[kQueriesAtOnce];
  int64_t waiting = 0;
  for (int64_t r = 0; r < args.num_rows; ++r) {
    for (int64_t h = 0; h < args.heads; ++h) {
      queries[waiting] = {.q = Row<float>(args.q, r) + h * args.head_dim,
                          .y = Row<uint16_t>(args.y, r) + h * args.head_dim,
                          .position = args.first_position + r,
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
