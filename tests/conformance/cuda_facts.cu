// Looks at what the kernels of GPUs take for granted, on the first GPU: a line for each fact, and 1
// where one does not hold. Not run on a GPU yet.
#include <cstdio>
#include <exception>
#include <memory>
#include <utility>

#include "cuda_facts.h"

namespace wideload::bench {
namespace {

// 10^6 outputs each, and one tile more.
constexpr int64_t kProblems = 1'000'000 / (kRows * kColumns) + 1;

bool Report(const char* fact, const FactCounts& counts) {
  const bool holds = counts.differing == 0;
  std::printf("%-4s %s: %d of %lld outputs have other bits\n", holds ? "yes" : "NO", fact,
              counts.differing, static_cast<long long>(counts.outputs));
  return holds;
}

bool CheckAll() {
  const int first[] = {0};
  const std::unique_ptr<device::Device> device = std::move(device::OpenDevices(first).front());
  std::printf("on %s\n", device->properties().name.c_str());
  const FactCounts places = CountDiffering<PlacesKernel<MatrixInstruction>>(*device, kProblems, 1);
  const FactCounts zeros = CountDiffering<ZerosKernel<MatrixInstruction>>(*device, kProblems, 2);
  const bool same = Report("mma.sync gives the same bits at every place beside anything", places);
  return Report("zero products leave an accumulator's bits", zeros) && same;
}

}  // namespace
}  // namespace wideload::bench

int main() {
  try {
    return wideload::bench::CheckAll() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cuda_facts: %s\n", error.what());
    return 2;
  }
}
