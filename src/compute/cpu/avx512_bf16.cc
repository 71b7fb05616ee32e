// The avx512_bf16 kernel set: GEMM with vdpbf16ps, all else as avx512. Compiled for AVX-512 with
// BF16: all of it but the table is internal.
#include "compute/cpu/vec_avx512.h"
// The vec header comes first.
#include "compute/cpu/gemm_impl.h"
#include "compute/kernels.h"

namespace wideload::compute {
namespace {

inline __m512bh AsBf16(__m512i bits) { return reinterpret_cast<__m512bh>(bits); }

// bf16 rows times bf16 weights [k / 2][16][2], a pair of k per instruction. vdpbf16ps rounds to
// nearest even and takes denormals as zero, whatever MXCSR says.
struct PairDot {
  template <int R, int G>
  static void Run(const GemmArgs& args, int64_t first_row, const std::byte* weights,
                  const Ahead& ahead, Sums<R, G>& result) {
    const uint16_t* rows[R];
    for (int r = 0; r < R; ++r) rows[r] = Row<uint16_t>(args.x, first_row + r);
    Sums<R, G> sums;
    Clear(sums);
    const int64_t group = args.group_bytes;
    const int64_t k = args.k;
    const std::byte* w = weights;
    for (int64_t j = 0; j + 2 <= k; j += 2, w += kLineBytes) {
      uint32_t pairs[R];
      WIDELOAD_UNROLL
      for (int r = 0; r < R; ++r) __builtin_memcpy(&pairs[r], rows[r] + j, 4);
      Step(pairs, {w, ahead.Of(w), group}, sums);
    }
    if (k % 2 != 0) {
      uint32_t pairs[R];
      for (int r = 0; r < R; ++r) pairs[r] = rows[r][k - 1];
      Step(pairs, {w, ahead.Of(w), group}, sums);
    }
    result = sums;
  }

 private:
  // The same line of each group, and what is fetched meanwhile.
  struct Line {
    const std::byte* at;
    const std::byte* ahead;
    int64_t group;
  };

  template <int R, int G>
  [[gnu::always_inline]] static void Step(const uint32_t (&pairs)[R], const Line& line,
                                          Sums<R, G>& sums) {
    __m512bh columns[G];
    WIDELOAD_UNROLL
    for (int g = 0; g < G; ++g) {
      PrefetchLine(line.ahead + g * line.group);
      columns[g] = AsBf16(_mm512_loadu_si512(line.at + g * line.group));
    }
    WIDELOAD_UNROLL
    for (int r = 0; r < R; ++r) {
      const __m512bh pair = AsBf16(_mm512_set1_epi32(static_cast<int>(pairs[r])));
      WIDELOAD_UNROLL
      for (int g = 0; g < G; ++g) {
        sums.at[r][g].v = _mm512_dpbf16_ps(sums.at[r][g].v, pair, columns[g]);
      }
    }
  }
};

}  // namespace

const Kernels& Avx512Bf16Kernels() {
  static const Kernels kernels = [] {
    Kernels changed = Avx512Kernels();
    changed.gemm[kBf16Gemm] = RunGemm<PairDot>;
    return changed;
  }();
  return kernels;
}

}  // namespace wideload::compute
