// Norm, conversion, rotary positions, router and combine on sixteen lanes. A reduction's order
// depends on the length of the row alone.
//
// Blocking: none. A row of a model (4 to 32 KiB) stays in L1 between the passes over it, and loads
// and stores are the limit. Sums run in four chains: a fused multiply-add takes 4 cycles, and as
// many loads take 2 to 4. Together they are below 2 % of an iteration. Included after one of the
// vec headers; internal to the including translation unit.
#pragma once

#include "compute/cpu/rows_impl.h"
#include "compute/kernels.h"

namespace wideload::compute {
namespace {

// Chunk i of sixteen is added into sum i mod 4.
inline float SumOfSquares(const float* x, int64_t width) {
  Vec sums[4] = {Zero(), Zero(), Zero(), Zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
    WIDELOAD_UNROLL
    for (int64_t j = 0; j < 4; ++j) {
      const Vec a = Load(x + i + j * kLanes);
      sums[j] = Fma(a, a, sums[j]);
    }
  }
  for (int64_t j = 0; i < width; i += kLanes, ++j) {
    const Vec a = LoadUpTo(x + i, width - i);
    sums[j] = Fma(a, a, sums[j]);
  }
  return SumLanes(Add(Add(sums[0], sums[1]), Add(sums[2], sums[3])));
}

template <class T>
void NormRun(const float* x, const float* weight, int64_t width, float eps, T* y) {
  const float mean = SumOfSquares(x, width) / static_cast<float>(width);
  const float root = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + eps)));
  const Vec scale = Set1(1.0F / root);
  for (int64_t i = 0; i < width; i += kLanes) {
    Vec a = Mul(LoadUpTo(x + i, width - i), scale);
    if (weight != nullptr) a = Mul(a, LoadUpTo(weight + i, width - i));
    StoreUpTo(y + i, a, width - i);
  }
}

void Norm(const NormArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t h = 0; h < args.runs.heads; ++h) {
      const int64_t at = h * args.runs.stride;
      const float* x = Row<float>(args.x, r) + at;
      if (args.y_is_f32) {
        NormRun(x, args.weight, args.runs.width, args.eps, Row<float>(args.y, r) + at);
      } else {
        NormRun(x, args.weight, args.runs.width, args.eps, Row<uint16_t>(args.y, r) + at);
      }
    }
  }
}

void Convert(const ConvertArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* x = Row<float>(args.x, r);
    auto* y = Row<uint16_t>(args.y, r);
    const Vec scale = Set1(args.row_scales != nullptr ? args.row_scales[r] : 1.0F);
    for (int64_t i = 0; i < args.width; i += kLanes) {
      Vec a = LoadUpTo(x + i, args.width - i);
      if (args.row_scales != nullptr) a = Mul(a, scale);
      StoreUpTo(y + i, a, args.width - i);
    }
  }
}

// Rotates `count` <= 16 pairs.
inline void RotatePairs(float* first, float* second, const float* cos, const float* sin,
                        int64_t count) {
  const Vec a = LoadUpTo(first, count);
  const Vec b = LoadUpTo(second, count);
  const Vec c = LoadUpTo(cos, count);
  const Vec s = LoadUpTo(sin, count);
  StoreUpTo(first, NegFma(b, s, Mul(a, c)), count);
  StoreUpTo(second, Fma(a, s, Mul(b, c)), count);
}

void RotateInterleaved(float* head, int64_t half, const float* cos, const float* sin) {
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t count = Least(kLanes, half - i);
    float first[kLanes];
    float second[kLanes];
    float* pairs = head + 2 * i;
    for (int64_t j = 0; j < count; ++j) {
      first[j] = pairs[2 * j];
      second[j] = pairs[2 * j + 1];
    }
    RotatePairs(first, second, cos + i, sin + i, count);
    for (int64_t j = 0; j < count; ++j) {
      pairs[2 * j] = first[j];
      pairs[2 * j + 1] = second[j];
    }
  }
}

void Rope(const RopeArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* cos = args.cos + r * args.cos_stride;
    const float* sin = args.sin + r * args.sin_stride;
    for (int64_t h = 0; h < args.runs.heads; ++h) {
      float* head = Row<float>(args.x, r) + h * args.runs.stride;
      if (args.interleaved) {
        RotateInterleaved(head, args.half, cos, sin);
        continue;
      }
      for (int64_t i = 0; i < args.half; i += kLanes) {
        RotatePairs(head + i, head + args.half + i, cos + i, sin + i, args.half - i);
      }
    }
  }
}

// Writes exp(logit - largest) to `terms` and returns their sum. NaN logits stay out of the maximum
// and make the sum NaN.
inline float ExpTerms(const float* logits, int64_t count, float* terms) {
  const float lowest = -__builtin_inff();
  Vec largest = Set1(lowest);
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec x = Select(count - i < kLanes ? count - i : kLanes, LoadUpTo(logits + i, count - i),
                         Set1(lowest));
    largest = Max(x, largest);
  }
  const Vec shift = Set1(MaxLanes(largest));
  Vec sum = Zero();
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec e = Exp(Sub(LoadUpTo(logits + i, count - i), shift));
    Store(terms + i, e);
    sum = Add(sum, Select(count - i < kLanes ? count - i : kLanes, e, Zero()));
  }
  return SumLanes(sum);
}

// The indices of the largest values offered so far, descending, ties to the one offered first; NaN
// counts as -infinity.
struct TopK {
  const float* values;
  int64_t most;
  int32_t* ids;
  int64_t chosen;
};

inline float Key(const TopK& top, int64_t i) {
  const float value = top.values[i];
  return value == value ? value : -__builtin_inff();
}

inline void Offer(TopK& top, int64_t begin, int64_t end) {
  for (int64_t e = begin; e < end; ++e) {
    const float value = Key(top, e);
    if (top.chosen == top.most && !(value > Key(top, top.ids[top.most - 1]))) continue;
    int64_t place = top.chosen < top.most ? top.chosen++ : top.most - 1;
    for (; place > 0 && value > Key(top, top.ids[place - 1]); --place) {
      top.ids[place] = top.ids[place - 1];
    }
    top.ids[place] = static_cast<int32_t>(e);
  }
}

// Softmax over `count` logits, or the sigmoid of each.
inline void Scores(bool sigmoid, const float* logits, int64_t count, float* scores) {
  if (sigmoid) {
    for (int64_t i = 0; i < count; i += kLanes) {
      Store(scores + i, Sigmoid(LoadUpTo(logits + i, count - i)));
    }
    return;
  }
  const Vec total = Set1(ExpTerms(logits, count, scores));
  for (int64_t i = 0; i < count; i += kLanes) Store(scores + i, Div(Load(scores + i), total));
}

// Offers the experts of the best groups.
void OfferBestGroups(const RouterArgs& args, TopK& top) {
  const int64_t size = args.experts / args.num_groups;
  float scores[kMaxExpertGroups];
  for (int64_t g = 0; g < args.num_groups; ++g) {
    int32_t ids[2];
    TopK largest = {.values = top.values,
                    .most = args.group_by_two && size > 1 ? 2 : 1,
                    .ids = ids,
                    .chosen = 0};
    Offer(largest, g * size, (g + 1) * size);
    scores[g] = top.values[ids[0]];
    if (largest.most == 2) scores[g] += top.values[ids[1]];
  }
  int32_t best[kMaxExpertGroups];
  TopK groups = {.values = scores, .most = args.top_groups, .ids = best, .chosen = 0};
  Offer(groups, 0, args.num_groups);
  bool kept[kMaxExpertGroups] = {};
  for (int64_t i = 0; i < args.top_groups; ++i) kept[best[i]] = true;
  for (int64_t g = 0; g < args.num_groups; ++g) {
    if (kept[g]) Offer(top, g * size, (g + 1) * size);
  }
}

void RouteOne(const RouterArgs& args, const float* logits, int32_t* ids, float* weights) {
  float scores[kMaxExperts + kLanes];
  float choice[kMaxExperts];
  Scores(args.sigmoid, logits, args.experts, scores);
  const bool by_logit = args.sigmoid && args.bias == nullptr;
  for (int64_t e = 0; e < args.experts; ++e) {
    const float base = by_logit ? logits[e] : scores[e];
    choice[e] = args.bias != nullptr ? base + args.bias[e] : base;
  }
  TopK top = {.values = choice, .most = args.top_k, .ids = ids, .chosen = 0};
  if (args.top_groups < args.num_groups) {
    OfferBestGroups(args, top);
  } else {
    Offer(top, 0, args.experts);
  }
  float total = 0;
  for (int64_t k = 0; k < args.top_k; ++k) {
    weights[k] = scores[ids[k]];
    total += weights[k];
  }
  for (int64_t k = 0; k < args.top_k; ++k) {
    if (args.normalize) weights[k] /= total + args.normalize_epsilon;
    weights[k] *= args.scale;
  }
}

void Router(const RouterArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    RouteOne(args, Row<float>(args.logits, r), Row<int32_t>(args.ids, r),
             Row<float>(args.weights, r));
  }
}

void Combine(const CombineArgs& args, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    float* y = Row<float>(args.y, t);
    const float* weights = Row<float>(args.weights, t);
    const std::byte* const* rows = args.rows + t * args.top_k;
    for (int64_t i = 0; i < args.width; i += kLanes) {
      const int64_t count = args.width - i;
      Vec sum = Zero();
      for (int64_t k = 0; k < args.top_k; ++k) {
        if (rows[k] == nullptr) continue;
        const auto* row = reinterpret_cast<const uint16_t*>(rows[k]);
        sum = Fma(Set1(weights[k]), LoadUpTo(row + i, count), sum);
      }
      StoreUpTo(y + i, Add(LoadUpTo(y + i, count), sum), count);
    }
  }
}

}  // namespace
}  // namespace wideload::compute
