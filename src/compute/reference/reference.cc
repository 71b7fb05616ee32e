// The oracle: every op as its formula reads, in fp32, one element after the other. A dot product
// adds its k products in order into one fp32 sum.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "compute/fold_order.h"
#include "compute/kernels.h"
#include "tensor/dtype.h"

namespace wideload::compute {
namespace {

template <class T>
const T* Row(const InRows& rows, int64_t i) {
  return reinterpret_cast<const T*>(rows.pointers != nullptr ? rows.pointers[i]
                                                             : rows.base + i * rows.stride_bytes);
}

template <class T>
T* Row(const OutRows& rows, int64_t i) {
  return reinterpret_cast<T*>(rows.pointers != nullptr ? rows.pointers[i]
                                                       : rows.base + i * rows.stride_bytes);
}

using GroupSums = std::array<float, kGroupColumns>;

// weights: [k][kGroupColumns] of one group.
GroupSums DotGroup(const float* x, const float* weights, int64_t k) {
  GroupSums sums{};
  for (int64_t j = 0; j < k; ++j) {
    for (size_t c = 0; c < sums.size(); ++c) {
      sums[c] += x[j] * weights[j * kGroupColumns + static_cast<int64_t>(c)];
    }
  }
  return sums;
}

GroupSums DotF32(const float* x, const std::byte* group, int64_t k) {
  return DotGroup(x, reinterpret_cast<const float*>(group), k);
}

// Element (j, c) of lines that hold a pair of k for each column.
int64_t PairPlace(int64_t j, int64_t c) { return j / 2 * 2 * kGroupColumns + 2 * c + j % 2; }

GroupSums DotBf16(const float* x, const std::byte* group, int64_t k) {
  GroupSums sums{};
  for (int64_t j = 0; j < k; ++j) {
    for (size_t c = 0; c < sums.size(); ++c) {
      sums[c] += x[j] * LoadFloat(DType::kBF16, group, PairPlace(j, static_cast<int64_t>(c)));
    }
  }
  return sums;
}

// sums += scales * partial
void AddScaled(const GroupSums& partial, const GroupSums& scales, GroupSums& sums) {
  for (size_t c = 0; c < sums.size(); ++c) sums[c] += partial[c] * scales[c];
}

// A block's scale multiplies the partial sum of its 128 k.
GroupSums DotFp8(const float* x, const std::byte* group, int64_t k) {
  GroupSums sums{};
  for (int64_t begin = 0; begin < k; begin += kFp8BlockK) {
    const std::byte* codes = group + kScaleLineBytes;
    const int64_t count = std::min(kFp8BlockK, k - begin);
    std::array<float, kFp8BlockK * kGroupColumns> wide;
    for (int64_t j = 0; j < count; ++j) {
      for (int64_t c = 0; c < kGroupColumns; ++c) {
        wide[static_cast<size_t>(j * kGroupColumns + c)] =
            LoadFloat(DType::kF8E4M3, codes, PairPlace(j, c));
      }
    }
    GroupSums scales;
    std::memcpy(scales.data(), group, sizeof(scales));
    AddScaled(DotGroup(x + begin, wide.data(), count), scales, sums);
    group = codes + kFp8BlockK * kGroupColumns;
  }
  return sums;
}

// The 32 k of a block, its 4-bit codes through a table.
using FourBitTable = std::array<float, 16>;

GroupSums DotFourBits(const float* x, const std::byte* block, const FourBitTable& table) {
  std::array<float, kFourBitBlockK * kGroupColumns> wide;
  for (int64_t j = 0; j < kFourBitBlockK; ++j) {
    for (int64_t c = 0; c < kGroupColumns; ++c) {
      uint32_t word;
      std::memcpy(&word, block + (j / 8 * kGroupColumns + c) * 4, sizeof(word));
      wide[static_cast<size_t>(j * kGroupColumns + c)] = table[(word >> (4 * (j % 8))) & 15U];
    }
  }
  return DotGroup(x, wide.data(), kFourBitBlockK);
}

// A group's scale multiplies the partial sum of its 32 k.
GroupSums DotInt4(const float* x, const std::byte* group, int64_t k) {
  constexpr FourBitTable kValues = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
  GroupSums sums{};
  const std::byte* line = group;
  for (int64_t j = 0; j < k; j += kFourBitBlockK) {
    const int64_t in_line = j % kInt4ScaleLineK / kFourBitBlockK;
    if (in_line == 0) {
      line = group;
      group += kScaleLineBytes;
    }
    GroupSums scales;
    for (size_t c = 0; c < scales.size(); ++c) {
      scales[c] = LoadFloat(DType::kBF16, line, in_line * kGroupColumns + static_cast<int64_t>(c));
    }
    AddScaled(DotFourBits(x + j, group, kValues), scales, sums);
    group += kFourBitBlockBytes;
  }
  return sums;
}

// A block's scale is a power of two, which the partial sum of its 32 k takes without rounding.
GroupSums DotMxfp4(const float* x, const std::byte* group, int64_t k) {
  constexpr FourBitTable kValues = {0,     0.5F,  1,  1.5F,  2,  3,  4,  6,
                                    -0.0F, -0.5F, -1, -1.5F, -2, -3, -4, -6};
  GroupSums sums{};
  const std::byte* line = group;
  for (int64_t j = 0; j < k; j += kFourBitBlockK) {
    const int64_t in_line = j % kMxfp4ScaleLineK / kFourBitBlockK;
    if (in_line == 0) {
      line = group;
      group += kScaleLineBytes;
    }
    GroupSums scales;
    for (size_t c = 0; c < scales.size(); ++c) {
      const auto exponent = std::to_integer<int>(line[static_cast<size_t>(in_line) * 16 + c]);
      scales[c] = std::ldexp(1.0F, exponent - 127);
    }
    AddScaled(DotFourBits(x + j, group, kValues), scales, sums);
    group += kFourBitBlockBytes;
  }
  return sums;
}

float Activate(const GatedActivation& a, float gate, float up) {
  // The comparisons leave NaN as it is.
  if (gate > a.limit) gate = a.limit;
  if (up > a.limit) up = a.limit;
  if (up < -a.limit) up = -a.limit;
  return gate / (1.0F + std::exp(-a.alpha * gate)) * (up + a.up_offset);
}

void AddBias(const float* bias, int64_t packed_group, GroupSums& sums) {
  if (bias == nullptr) return;
  for (size_t c = 0; c < sums.size(); ++c) {
    sums[c] += bias[packed_group * kGroupColumns + static_cast<int64_t>(c)];
  }
}

template <GroupSums (*kDot)(const float*, const std::byte*, int64_t)>
void Gemm(const GemmArgs& args, const GemmTile& tile) {
  const auto sums_of = [&](const float* x, int64_t packed_group) {
    GroupSums sums = kDot(x, args.weights + packed_group * args.group_bytes, args.k);
    AddBias(args.bias, packed_group, sums);
    return sums;
  };
  for (int64_t g = tile.group_begin; g < tile.group_end; ++g) {
    const int64_t columns = std::min(kGroupColumns, args.n - g * kGroupColumns);
    for (int64_t r = tile.row_begin; r < tile.row_end; ++r) {
      const float* x = Row<float>(args.x, r);
      float* y = Row<float>(args.y, r) + g * kGroupColumns;
      GroupSums sums;
      if (args.epilogue == GemmEpilogue::kGated) {
        sums = sums_of(x, 2 * g);
        const GroupSums up = sums_of(x, 2 * g + 1);
        for (size_t c = 0; c < sums.size(); ++c) {
          sums[c] = Activate(args.activation, sums[c], up[c]);
        }
      } else {
        sums = sums_of(x, g);
      }
      const bool add = args.epilogue == GemmEpilogue::kAdd;
      for (int64_t c = 0; c < columns; ++c) {
        const float sum = sums[static_cast<size_t>(c)];
        y[c] = add ? y[c] + sum : sum;
      }
    }
  }
}

void Norm(const NormArgs& args, int64_t begin, int64_t end) {
  const int64_t width = args.runs.width;
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t h = 0; h < args.runs.heads; ++h) {
      const float* x = Row<float>(args.x, r) + h * args.runs.stride;
      float* y = Row<float>(args.y, r) + h * args.runs.stride;
      float squares = 0;
      for (int64_t i = 0; i < width; ++i) squares += x[i] * x[i];
      const float mean = squares / static_cast<float>(width);
      const float scale = 1.0F / std::sqrt(mean + args.eps);
      for (int64_t i = 0; i < width; ++i) {
        const float normed = x[i] * scale;
        y[i] = args.weight != nullptr ? normed * args.weight[i] : normed;
      }
    }
  }
}

void Convert(const ConvertArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* x = Row<float>(args.x, r);
    float* y = Row<float>(args.y, r);
    for (int64_t i = 0; i < args.width; ++i) {
      y[i] = args.row_scales != nullptr ? x[i] * args.row_scales[r] : x[i];
    }
  }
}

void Rope(const RopeArgs& args, int64_t begin, int64_t end) {
  const int64_t step = args.interleaved ? 2 : 1;
  const int64_t apart = args.interleaved ? 1 : args.half;
  for (int64_t r = begin; r < end; ++r) {
    const float* cos = args.cos + r * args.cos_stride;
    const float* sin = args.sin + r * args.sin_stride;
    for (int64_t h = 0; h < args.runs.heads; ++h) {
      float* head = Row<float>(args.x, r) + h * args.runs.stride;
      for (int64_t i = 0; i < args.half; ++i) {
        float& first = head[i * step];
        float& second = head[i * step + apart];
        const float x = first;
        const float y = second;
        first = x * cos[i] - y * sin[i];
        second = y * cos[i] + x * sin[i];
      }
    }
  }
}

// A cached row of position p.
const float* Cached(const AttentionArgs& args, const std::byte* part, int64_t block_bytes,
                    int64_t width, int64_t p) {
  const int64_t block = args.blocks[p / args.block_tokens / args.num_parts];
  return reinterpret_cast<const float*>(part + block * block_bytes) + p % args.block_tokens * width;
}

int64_t FirstVisible(const AttentionArgs& args, int64_t position) {
  int64_t first = 0;
  if (args.window > 0) first = std::max(first, position + 1 - args.window);
  if (args.chunk > 0) first = std::max(first, position / args.chunk * args.chunk);
  return first;
}

// A softmax over some keys: the sum of exp(score - largest) * value, which means nothing while
// total is 0.
struct SoftmaxPart {
  std::array<float, kMaxHeadDim> sums;
  float largest = 0;
  float total = 0;
};

// One query at `position`, of one head.
struct ReferenceQuery {
  const float* q = nullptr;
  const float* sink = nullptr;
  int64_t position = 0;
};

// Computed as the keys of a stripe come.
void AttendStripe(const AttentionArgs& args, const ReferenceQuery& query, int64_t stripe,
                  SoftmaxPart& part) {
  const float* sink = stripe == 0 ? query.sink : nullptr;
  part.sums.fill(0);
  part.largest = sink != nullptr ? *sink : -std::numeric_limits<float>::infinity();
  part.total = sink != nullptr ? 1.0F : 0.0F;
  for (int64_t p = FirstVisible(args, query.position); p <= query.position; ++p) {
    if (p / args.block_tokens % kStripes != stripe) continue;
    const float* key = Cached(args, args.keys, args.key_block_bytes, args.key_dim, p);
    const float* value = args.values == nullptr
                             ? key
                             : Cached(args, args.values, args.value_block_bytes, args.value_dim, p);
    float dot = 0;
    for (int64_t d = 0; d < args.key_dim; ++d) dot += query.q[d] * key[d];
    const float score = dot * args.scale;
    float* sums = part.sums.data();
    if (score > part.largest) {
      const float shrink = std::exp(part.largest - score);
      part.total *= shrink;
      for (int64_t d = 0; d < args.value_dim; ++d) sums[d] *= shrink;
      part.largest = score;
    }
    const float weight = std::exp(score - part.largest);
    part.total += weight;
    for (int64_t d = 0; d < args.value_dim; ++d) sums[d] += weight * value[d];
  }
}

void AddPart(SoftmaxPart& a, const SoftmaxPart& b, int64_t value_dim) {
  if (b.total == 0) return;
  if (a.total == 0) {
    a = b;
    return;
  }
  const float largest = std::max(a.largest, b.largest);
  const float of_a = std::exp(a.largest - largest);
  const float of_b = std::exp(b.largest - largest);
  for (size_t d = 0; d < static_cast<size_t>(value_dim); ++d)
    a.sums[d] = a.sums[d] * of_a + b.sums[d] * of_b;
  a.largest = largest;
  a.total = a.total * of_a + b.total * of_b;
}

// One query at a time: `part_of(place, part)` makes the leaves of the tree.
template <class PartOf>
void Fold(int64_t num_leaves, int64_t value_dim, SoftmaxPart* parts, PartOf part_of) {
  for (int64_t i = 0; i < num_leaves; ++i) {
    int64_t level = FoldLevel(i);
    part_of(FoldPlace(i, num_leaves), parts[level]);
    for (int64_t j = i; j % 2 == 1; j /= 2, --level)
      AddPart(parts[level - 1], parts[level], value_dim);
  }
}

void FinishPart(const SoftmaxPart& part, int64_t value_dim, float* y) {
  for (int64_t d = 0; d < value_dim; ++d) y[d] = part.sums[static_cast<size_t>(d)] / part.total;
}

void Attention(const AttentionArgs& args) {
  SoftmaxPart parts[kFoldDepth];
  const int64_t width = args.is_partial ? args.value_dim + 2 : args.value_dim;
  for (int64_t r = 0; r < args.num_rows; ++r) {
    for (int64_t h = 0; h < args.heads; ++h) {
      const ReferenceQuery query = {.q = Row<float>(args.q, r) + h * args.key_dim,
                                    .sink = args.sinks != nullptr ? args.sinks + h : nullptr,
                                    .position = args.first_position + r};
      Fold(kStripes / args.num_parts, args.value_dim, parts, [&](int64_t place, SoftmaxPart& part) {
        AttendStripe(args, query, args.part + args.num_parts * place, part);
      });
      float* y = Row<float>(args.y, r) + h * width;
      if (!args.is_partial) {
        FinishPart(parts[0], args.value_dim, y);
        continue;
      }
      std::copy_n(parts[0].sums.data(), args.value_dim, y);
      y[args.value_dim] = parts[0].largest;
      y[args.value_dim + 1] = parts[0].total;
    }
  }
}

void MergeAttention(const MergeAttentionArgs& args, int64_t begin, int64_t end) {
  SoftmaxPart parts[kFoldDepth];
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t h = 0; h < args.heads; ++h) {
      Fold(args.num_parts, args.value_dim, parts, [&](int64_t place, SoftmaxPart& part) {
        const float* from =
            Row<float>(args.parts, r) + place * args.part_stride + h * (args.value_dim + 2);
        std::copy_n(from, args.value_dim, part.sums.data());
        part.largest = from[args.value_dim];
        part.total = from[args.value_dim + 1];
      });
      FinishPart(parts[0], args.value_dim, Row<float>(args.y, r) + h * args.value_dim);
    }
  }
}

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// The largest of values[0 .. count) that is not taken; NaN counts as -infinity, ties go to the
// lowest index.
size_t Best(const float* values, const bool* taken, size_t count) {
  const auto key = [values](size_t i) { return std::isnan(values[i]) ? kLowest : values[i]; };
  size_t best = count;
  for (size_t i = 0; i < count; ++i) {
    if (!taken[i] && (best == count || key(i) > key(best))) best = i;
  }
  return best;
}

// Softmax over `scores`, or the sigmoid of each, in place.
void Score(bool sigmoid, float* scores, size_t count) {
  if (sigmoid) {
    for (size_t e = 0; e < count; ++e) scores[e] = 1.0F / (1.0F + std::exp(-scores[e]));
    return;
  }
  float largest = kLowest;
  for (size_t e = 0; e < count; ++e) largest = std::max(largest, scores[e]);
  float total = 0;
  for (size_t e = 0; e < count; ++e) {
    scores[e] = std::exp(scores[e] - largest);
    total += scores[e];
  }
  for (size_t e = 0; e < count; ++e) scores[e] /= total;
}

// Marks as taken all experts of groups that are not among the best.
void TakeOtherGroups(const RouterArgs& args, const float* choice, bool* taken) {
  const auto groups = static_cast<size_t>(args.num_groups);
  const size_t size = static_cast<size_t>(args.experts) / groups;
  std::array<float, kMaxExpertGroups> scores;
  std::array<bool, kMaxExpertGroups> kept{};
  for (size_t g = 0; g < groups; ++g) {
    const float* values = choice + g * size;
    std::array<bool, kMaxExperts> seen{};
    const size_t first = Best(values, seen.data(), size);
    scores[g] = values[first];
    seen[first] = true;
    if (args.group_by_two && size > 1) scores[g] += values[Best(values, seen.data(), size)];
  }
  for (int64_t i = 0; i < args.top_groups; ++i)
    kept[Best(scores.data(), kept.data(), groups)] = true;
  for (size_t e = 0; e < groups * size; ++e) taken[e] = !kept[e / size];
}

void RouteOne(const RouterArgs& args, const float* logits, int32_t* ids, float* weights) {
  const auto experts = static_cast<size_t>(args.experts);
  std::array<float, kMaxExperts> scores;
  std::array<float, kMaxExperts> choice;
  std::array<bool, kMaxExperts> taken{};
  std::copy_n(logits, experts, scores.data());
  Score(args.sigmoid, scores.data(), experts);
  const bool by_logit = args.sigmoid && args.bias == nullptr;
  for (size_t e = 0; e < experts; ++e) {
    const float base = by_logit ? logits[e] : scores[e];
    choice[e] = args.bias != nullptr ? base + args.bias[e] : base;
  }
  if (args.top_groups < args.num_groups) TakeOtherGroups(args, choice.data(), taken.data());
  float total = 0;
  for (int64_t k = 0; k < args.top_k; ++k) {
    const size_t best = Best(choice.data(), taken.data(), experts);
    taken[best] = true;
    ids[k] = static_cast<int32_t>(best);
    weights[k] = scores[best];
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
    for (int64_t i = 0; i < args.width; ++i) {
      float sum = 0;
      for (int64_t k = 0; k < args.top_k; ++k) {
        if (rows[k] != nullptr) sum += weights[k] * reinterpret_cast<const float*>(rows[k])[i];
      }
      y[i] += sum;
    }
  }
}

}  // namespace

const Kernels& ReferenceKernels() {
  static constexpr Kernels kKernels = {
      .gemm = {Gemm<DotF32>, Gemm<DotBf16>, Gemm<DotFp8>, Gemm<DotInt4>, Gemm<DotMxfp4>},
      .norm = Norm,
      .convert = Convert,
      .rope = Rope,
      .attention = Attention,
      .merge_attention = MergeAttention,
      .router = Router,
      .combine = Combine};
  return kKernels;
}

}  // namespace wideload::compute
