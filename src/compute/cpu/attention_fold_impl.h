// Partial results of attention, on sixteen lanes: a softmax over some of the keys, and how two of
// them become one. Blocking: none, since it is once for each stripe: a part (at most 4 KiB) is in
// L1 or L2, and exponentials of sixteen queries are computed at once, as many as a register has
// lanes. Included after rows_impl.h; internal to the including translation unit.
#pragma once

#include "compute/cpu/rows_impl.h"
#include "compute/fold_order.h"
#include "compute/kernels.h"

namespace wideload::compute {
namespace {

constexpr int64_t kPaddedHeadDim = kMaxHeadDim + kLanes;

// Elements from one row of a step to the next.
inline int64_t Padded(int64_t width) { return (width + kLanes - 1) / kLanes * kLanes; }

// One query's softmax over the keys so far: `out` [padded value_dim] is the sum of exp(score -
// largest) * value and means nothing while `total` is 0: it has no key then.
struct SoftmaxPart {
  float largest;
  float total;
  float* out;
};

inline void StartPart(SoftmaxPart& part, const float* sink, int64_t width) {
  part.largest = sink != nullptr ? *sink : -__builtin_inff();
  part.total = sink != nullptr ? 1.0F : 0.0F;
  for (int64_t d = 0; d < width; d += kLanes) Store(part.out + d, Zero());
}

// a = a and b, of one query. What shrinks is multiplied with exp(its largest - the largest of
// both), which is exactly 1 for one of them. `width` is padded.
inline void AddPart(SoftmaxPart& a, const SoftmaxPart& b, float shrink_a, float shrink_b,
                    int64_t width) {
  if (b.total == 0) return;
  if (a.total == 0) {
    for (int64_t d = 0; d < width; d += kLanes) Store(a.out + d, Load(b.out + d));
    a.largest = b.largest;
    a.total = b.total;
    return;
  }
  const Vec of_a = Set1(shrink_a);
  const Vec of_b = Set1(shrink_b);
  for (int64_t d = 0; d < width; d += kLanes)
    Store(a.out + d, Fma(Load(b.out + d), of_b, Mul(Load(a.out + d), of_a)));
  if (b.largest > a.largest) a.largest = b.largest;
  a.total = a.total * shrink_a + b.total * shrink_b;
}

// The same of `count` queries, sixteen exponentials at once.
void AddParts(SoftmaxPart* a, const SoftmaxPart* b, int64_t count, int64_t width) {
  float of_a[kLanes];
  float of_b[kLanes];
  for (int64_t first = 0; first < count; first += kLanes) {
    const int64_t some = Least(kLanes, count - first);
    for (int64_t i = 0; i < kLanes; ++i) {
      of_a[i] = i < some ? a[first + i].largest : 0;
      of_b[i] = i < some ? b[first + i].largest : 0;
    }
    const Vec largest = Max(Load(of_a), Load(of_b));
    Store(of_a, Exp(Sub(Load(of_a), largest)));
    Store(of_b, Exp(Sub(Load(of_b), largest)));
    for (int64_t i = 0; i < some; ++i) AddPart(a[first + i], b[first + i], of_a[i], of_b[i], width);
  }
}

// The softmax is over: y = out / total, rounded.
inline void FinishPart(const SoftmaxPart& part, int64_t value_dim, uint16_t* y) {
  const Vec total = Set1(part.total);
  for (int64_t d = 0; d < value_dim; d += kLanes)
    StoreUpTo(y + d, Div(Mixed(Load(part.out + d)), total), value_dim - d);
}

// The partial result as it is: out, largest, total.
inline void StorePart(const SoftmaxPart& part, int64_t value_dim, float* y) {
  for (int64_t d = 0; d < value_dim; d += kLanes)
    StoreUpTo(y + d, Mixed(Load(part.out + d)), value_dim - d);
  y[value_dim] = part.largest;
  y[value_dim + 1] = part.total;
}

void MergeAttention(const MergeAttentionArgs& args, int64_t begin, int64_t end) {
  float out[kFoldDepth][kPaddedHeadDim];
  SoftmaxPart parts[kFoldDepth];
  for (int64_t level = 0; level < kFoldDepth; ++level) parts[level].out = out[level];
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t h = 0; h < args.heads; ++h) {
      for (int64_t i = 0; i < args.num_parts; ++i) {
        const float* from = Row<float>(args.parts, row) +
                            FoldPlace(i, args.num_parts) * args.part_stride +
                            h * (args.value_dim + 2);
        int64_t level = FoldLevel(i);
        SoftmaxPart& part = parts[level];
        for (int64_t d = 0; d < args.value_dim; d += kLanes)
          Store(part.out + d, Mixed(LoadUpTo(from + d, args.value_dim - d)));
        part.largest = from[args.value_dim];
        part.total = from[args.value_dim + 1];
        for (int64_t j = i; j % 2 == 1; j /= 2, --level)
          AddParts(&parts[level - 1], &parts[level], 1, Padded(args.value_dim));
      }
      FinishPart(parts[0], args.value_dim, Row<uint16_t>(args.y, row) + h * args.value_dim);
    }
  }
}

}  // namespace
}  // namespace wideload::compute
