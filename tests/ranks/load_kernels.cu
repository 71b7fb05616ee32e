// nvcc compiles this file, and load_kernels_emulated.cc for this processor.

#include "device/kernel.h"
#include "tests/ranks/load_kernels.h"

namespace wideload::exchange {
namespace load_kernels {

// A block for each row, as in all of them. The operations of ExpertValue.
struct Expert {
  using Args = ExpertArgs;
  static constexpr int kThreads = 32;
  static WIDELOAD_DEVICE void Run(const Args& args) {
    const auto* const x = reinterpret_cast<const float*>(args.x[device::Block()]);
    auto* const y = reinterpret_cast<float*>(args.y[device::Block()]);
    const float scale = 1.0F + device::Divide(static_cast<float>(args.expert), 7.0F);
    for (int64_t i = device::Lane(); i < args.hidden; i += device::kWarp)
      y[i] = x[i] * scale + device::Divide(x[(i + args.expert) % args.hidden],
                                           static_cast<float>(args.expert + 3));
  }
};

struct Sum {
  using Args = SumArgs;
  static constexpr int kThreads = 32;
  static WIDELOAD_DEVICE void Run(const Args& args) {
    const int64_t first = device::Block() * args.top_k;
    for (int64_t i = device::Lane(); i < args.hidden; i += device::kWarp) {
      float sum = 0;
      for (int64_t entry = first; entry < first + args.top_k; ++entry) {
        const auto* const row = reinterpret_cast<const float*>(args.rows[entry]);
        if (row != nullptr) sum += args.weights[entry] * row[i];
      }
      args.out[device::Block() * args.hidden + i] = sum;
    }
  }
};

struct Copy {
  using Args = CopyArgs;
  static constexpr int kThreads = 32;
  static WIDELOAD_DEVICE void Run(const Args& args) {
    const std::byte* const from = args.from[device::Block()];
    std::byte* const to = args.to[device::Block()];
    for (int64_t i = device::Lane(); i < args.row_bytes; i += device::kWarp) to[i] = from[i];
  }
};

}  // namespace load_kernels

void ApplyExperts(device::Stream& stream, const ExpertArgs& args, int64_t rows) {
  device::Launch<load_kernels::Expert>(stream, {.blocks = rows}, args);
}

void SumRows(device::Stream& stream, const SumArgs& args, int64_t tokens) {
  device::Launch<load_kernels::Sum>(stream, {.blocks = tokens}, args);
}

void CopyRowsPlainly(device::Stream& stream, const CopyArgs& args, int64_t rows) {
  device::Launch<load_kernels::Copy>(stream, {.blocks = rows}, args);
}

}  // namespace wideload::exchange
