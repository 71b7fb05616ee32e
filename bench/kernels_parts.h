// The parts of bench_kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "compute/exec.h"

namespace wideload::bench {

struct KernelsOptions {
  std::vector<compute::KernelSet> kernels;  // that this machine can run
  int threads = 1;
  int repetitions = 9;
  int64_t n = 2048;  // of the weights that MeasureFormats streams
  int64_t k = 7168;
};

// Products of plain weights that lie in caches, as a share of the register-only peak.
void MeasureGemm(const KernelsOptions& options);
// Products of few rows with cold weights in every format, as decoding does them: how fast the
// stored bytes go by, beside plain reading of the same memory in the same moment.
void MeasureFormats(const KernelsOptions& options);
// 128 experts of few rows each beside one expert that has many.
void MeasureExperts(const KernelsOptions& options);
// Attention of one token of each of many sequences over their cached keys and values, beside plain
// reading of the same memory.
void MeasureAttention(const KernelsOptions& options);

}  // namespace wideload::bench
