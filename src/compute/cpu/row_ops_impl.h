// Norm, conversion, rotary positions, router and combine on sixteen lanes. A reduction's order
// depends on the length of the row alone. Included after one of the vec headers; internal to the
// including translation unit.
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
    const Vec a = Mul(LoadUpTo(x + i, width - i), scale);
    StoreUpTo(y + i, Mul(a, LoadUpTo(weight + i, width - i)), width - i);
  }
}

void Norm(const NormArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t h = 0; h < args.heads; ++h) {
      const int64_t at = h * args.width;
      const float* x = Row<float>(args.x, r) + at;
      if (args.y_is_f32) {
        NormRun(x, args.weight, args.width, args.eps, Row<float>(args.y, r) + at);
      } else {
        NormRun(x, args.weight, args.width, args.eps, Row<uint16_t>(args.y, r) + at);
      }
    }
  }
}

void Convert(const ConvertArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* x = Row<float>(args.x, r);
    auto* y = Row<uint16_t>(args.y, r);
    for (int64_t i = 0; i < args.width; i += kLanes) {
      StoreUpTo(y + i, LoadUpTo(x + i, args.width - i), args.width - i);
    }
  }
}

void RotateHead(float* first, int64_t half, const float* cos, const float* sin) {
  float* second = first + half;
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t count = half - i;
    const Vec a = LoadUpTo(first + i, count);
    const Vec b = LoadUpTo(second + i, count);
    const Vec c = LoadUpTo(cos + i, count);
    const Vec s = LoadUpTo(sin + i, count);
    StoreUpTo(first + i, NegFma(b, s, Mul(a, c)), count);
    StoreUpTo(second + i, Fma(a, s, Mul(b, c)), count);
  }
}

void Rope(const RopeArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* cos = args.cos + args.positions[r] * args.cos_stride;
    const float* sin = args.sin + args.positions[r] * args.sin_stride;
    float* x = Row<float>(args.x, r);
    for (int64_t h = 0; h < args.heads; ++h) {
      RotateHead(x + h * args.head_dim, args.half, cos, sin);
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

// The top_k largest values, descending, ties to the lowest index; NaN counts as less than any.
inline void SelectTopK(const float* values, int64_t count, int64_t top_k, int32_t* ids) {
  const auto key = [values](int64_t i) { return values[i] == values[i] ? values[i] : -1.0F; };
  int64_t chosen = 0;
  for (int64_t e = 0; e < count; ++e) {
    const float value = key(e);
    if (chosen == top_k && !(value > key(ids[top_k - 1]))) continue;
    int64_t place = chosen < top_k ? chosen++ : top_k - 1;
    for (; place > 0 && value > key(ids[place - 1]); --place) ids[place] = ids[place - 1];
    ids[place] = static_cast<int32_t>(e);
  }
}

void RouteOne(const RouterArgs& args, const float* logits, int32_t* ids, float* weights) {
  float probabilities[kMaxExperts + kLanes];
  const Vec total = Set1(ExpTerms(logits, args.experts, probabilities));
  for (int64_t i = 0; i < args.experts; i += kLanes) {
    Store(probabilities + i, Div(Load(probabilities + i), total));
  }
  SelectTopK(probabilities, args.experts, args.top_k, ids);
  float chosen_total = 0;
  for (int64_t k = 0; k < args.top_k; ++k) {
    weights[k] = probabilities[ids[k]];
    chosen_total += weights[k];
  }
  if (!args.normalize) return;
  for (int64_t k = 0; k < args.top_k; ++k) weights[k] /= chosen_total;
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
