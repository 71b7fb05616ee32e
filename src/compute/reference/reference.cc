// The oracle: every op as its formula reads, in fp32, one element after the other. A dot product
// adds its k products in order into one fp32 sum.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "compute/kernels.h"

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

float Silu(float x) { return x / (1.0F + std::exp(-x)); }

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

void Gemm(const GemmArgs& args, const GemmTile& tile) {
  const auto* weights = reinterpret_cast<const float*>(args.weights);
  const int64_t group_size = args.k * kGroupColumns;
  for (int64_t g = tile.group_begin; g < tile.group_end; ++g) {
    const int64_t columns = std::min(kGroupColumns, args.n - g * kGroupColumns);
    for (int64_t r = tile.row_begin; r < tile.row_end; ++r) {
      const float* x = Row<float>(args.x, r);
      float* y = Row<float>(args.y, r) + g * kGroupColumns;
      GroupSums sums;
      if (args.epilogue == GemmEpilogue::kSwiGlu) {
        sums = DotGroup(x, weights + 2 * g * group_size, args.k);
        const GroupSums up = DotGroup(x, weights + (2 * g + 1) * group_size, args.k);
        for (size_t c = 0; c < sums.size(); ++c) sums[c] = Silu(sums[c]) * up[c];
      } else {
        sums = DotGroup(x, weights + g * group_size, args.k);
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
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t h = 0; h < args.heads; ++h) {
      const float* x = Row<float>(args.x, r) + h * args.width;
      float* y = Row<float>(args.y, r) + h * args.width;
      float squares = 0;
      for (int64_t i = 0; i < args.width; ++i) squares += x[i] * x[i];
      const float mean = squares / static_cast<float>(args.width);
      const float scale = 1.0F / std::sqrt(mean + args.eps);
      for (int64_t i = 0; i < args.width; ++i) y[i] = x[i] * scale * args.weight[i];
    }
  }
}

void Convert(const ConvertArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    std::copy_n(Row<float>(args.x, r), args.width, Row<float>(args.y, r));
  }
}

void Rope(const RopeArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* cos = args.cos + args.positions[r] * args.cos_stride;
    const float* sin = args.sin + args.positions[r] * args.sin_stride;
    for (int64_t h = 0; h < args.heads; ++h) {
      float* a = Row<float>(args.x, r) + h * args.head_dim;
      float* b = a + args.half;
      for (int64_t i = 0; i < args.half; ++i) {
        const float x = a[i];
        const float y = b[i];
        a[i] = x * cos[i] - y * sin[i];
        b[i] = y * cos[i] + x * sin[i];
      }
    }
  }
}

// Softmax computed as the keys come: `y` holds the sum of exp(score - largest) * value.
void AttendOne(const AttentionArgs& args, const float* q, int64_t position, float* y) {
  std::fill_n(y, args.head_dim, 0.0F);
  float largest = -std::numeric_limits<float>::infinity();
  float total = 0;
  for (int64_t p = 0; p <= position; ++p) {
    const int64_t block = args.blocks[p / args.block_tokens];
    const int64_t offset = (p % args.block_tokens) * args.head_dim;
    const auto* key =
        reinterpret_cast<const float*>(args.keys + block * args.key_block_bytes) + offset;
    const auto* value =
        reinterpret_cast<const float*>(args.values + block * args.value_block_bytes) + offset;
    float dot = 0;
    for (int64_t d = 0; d < args.head_dim; ++d) dot += q[d] * key[d];
    const float score = dot * args.scale;
    if (score > largest) {
      const float shrink = std::exp(largest - score);
      total *= shrink;
      for (int64_t d = 0; d < args.head_dim; ++d) y[d] *= shrink;
      largest = score;
    }
    const float weight = std::exp(score - largest);
    total += weight;
    for (int64_t d = 0; d < args.head_dim; ++d) y[d] += weight * value[d];
  }
  for (int64_t d = 0; d < args.head_dim; ++d) y[d] /= total;
}

void Attention(const AttentionArgs& args) {
  for (int64_t r = 0; r < args.num_rows; ++r) {
    for (int64_t h = 0; h < args.heads; ++h) {
      const int64_t offset = h * args.head_dim;
      AttendOne(args, Row<float>(args.q, r) + offset, args.first_position + r,
                Row<float>(args.y, r) + offset);
    }
  }
}

void RouteOne(const RouterArgs& args, const float* logits, int32_t* ids, float* weights) {
  std::array<float, kMaxExperts> probabilities;
  std::array<bool, kMaxExperts> taken;
  const auto experts = static_cast<size_t>(args.experts);
  float largest = -std::numeric_limits<float>::infinity();
  for (size_t e = 0; e < experts; ++e) largest = std::max(largest, logits[e]);
  float total = 0;
  for (size_t e = 0; e < experts; ++e) {
    probabilities[e] = std::exp(logits[e] - largest);
    total += probabilities[e];
    taken[e] = false;
  }
  for (size_t e = 0; e < experts; ++e) probabilities[e] /= total;

  float chosen_total = 0;
  for (int64_t k = 0; k < args.top_k; ++k) {
    size_t best = experts;
    for (size_t e = 0; e < experts; ++e) {
      if (taken[e]) continue;
      const bool best_is_nan = best < experts && std::isnan(probabilities[best]);
      const bool replaces_nan = best_is_nan && !std::isnan(probabilities[e]);
      if (best == experts || replaces_nan || probabilities[e] > probabilities[best]) best = e;
    }
    taken[best] = true;
    ids[k] = static_cast<int32_t>(best);
    weights[k] = probabilities[best];
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
  static constexpr Kernels kKernels = {.gemm = Gemm,
                                       .gemm_f32 = Gemm,
                                       .norm = Norm,
                                       .convert = Convert,
                                       .rope = Rope,
                                       .attention = Attention,
                                       .router = Router,
                                       .combine = Combine};
  return kKernels;
}

}  // namespace wideload::compute
