// That cuda_facts finds an instruction of which what it looks at does not hold.
#include "cuda_facts.h"

#include <gtest/gtest.h>

#include <memory>

#include "device/emulated/emulated_device.h"

namespace wideload::bench {
namespace {

constexpr int64_t kProblems = 15;  // every spread of exponents three times

// The last bit of a sum is another one.
void Disturb(float& sum) { sum = device::FloatOfBits(device::BitsOfFloat(sum) ^ 1U); }

// In the last row.
struct OtherInARow {
  static void Run(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    device::MultiplyMatrices(sums, a, b);
    if (device::Lane() / 4 == 7) Disturb(sums[2]);
  }
};
// In the last column.
struct OtherInAColumn {
  static void Run(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    device::MultiplyMatrices(sums, a, b);
    if (device::Lane() % 4 == 3) Disturb(sums[1]);
  }
};
// Beside a neighbour that is no number.
struct OtherBesideNan {
  static void Run(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    device::MultiplyMatrices(sums, a, b);
    bool has_nan = false;
    for (const float sum : sums) has_nan = has_nan || sum != sum;
    if (device::Ballot(has_nan) != 0) Disturb(sums[0]);
  }
};
// With accumulators that lose what a GPU might take for too small.
struct FlushesDenormals {
  static void Run(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    device::MultiplyMatrices(sums, a, b);
    for (float& sum : sums)
      if ((device::BitsOfFloat(sum) & 0x7f800000U) == 0) sum = 0;
  }
};

struct CudaFacts : testing::Test {
  template <class Instruction>
  int32_t DifferingPlaces() {
    return CountDiffering<PlacesKernel<Instruction>>(*device, kProblems, 1).differing;
  }
  template <class Instruction>
  int32_t DifferingZeros() {
    return CountDiffering<ZerosKernel<Instruction>>(*device, 600, 2).differing;
  }
  std::unique_ptr<device::Device> device = device::MakeEmulatedDevice();
};

TEST_F(CudaFacts, HoldOfTheEmulatedInstruction) {
  EXPECT_EQ(DifferingPlaces<MatrixInstruction>(), 0);
  EXPECT_EQ(DifferingZeros<MatrixInstruction>(), 0);
}

TEST_F(CudaFacts, APlaceOfOtherBitsIsFound) {
  EXPECT_EQ(DifferingPlaces<OtherInARow>(), kProblems * kColumns / 2);
  EXPECT_EQ(DifferingPlaces<OtherInAColumn>(), kProblems * kRows / 2);
}

TEST_F(CudaFacts, BitsThatDependOnNeighboursAreFound) {
  EXPECT_GT(DifferingPlaces<OtherBesideNan>(), 0);
}

TEST_F(CudaFacts, ProductsOfZeroThatChangeASumAreFound) {
  EXPECT_GT(DifferingZeros<FlushesDenormals>(), 0);
}

}  // namespace
}  // namespace wideload::bench
