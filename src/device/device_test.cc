// The emulated device does what a GPU does, and finds what a GPU forgives or leaves undefined.
#include "device/device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "device/emulated/emulated_device.h"
#include "device/kernel.h"

namespace wideload::device {
namespace {

struct DeviceTest : testing::Test {
  std::unique_ptr<Device> device = MakeEmulatedDevice();
  std::unique_ptr<Stream> stream = device->MakeStream();

  template <class T>
  std::vector<T> Read(const Memory& memory, size_t count) {
    std::vector<T> values(count);
    stream->Copy(values.data(), memory.data(), static_cast<int64_t>(count * sizeof(T)));
    stream->Synchronize();
    return values;
  }
};

// y[block] = the sum of the block's threads' numbers, by way of warps and shared memory.
struct SumKernel {
  struct Args {
    const float* x;
    float* y;
    bool has_barrier;
  };
  static constexpr int kThreads = 128;
  static WIDELOAD_DEVICE void Run(const Args& args) {
    auto* sums = reinterpret_cast<float*>(SharedMemory());
    const float sum = WarpSum(args.x[Block() * NumThreads() + Thread()]);
    if (Lane() == 0) sums[Warp()] = sum;
    if (args.has_barrier) SyncBlock();
    if (Thread() != 0) return;
    float total = 0;
    for (int w = 0; w < NumThreads() / kWarp; ++w) total += sums[w];
    args.y[Block()] = total;
  }
};

std::vector<float> Count(size_t n) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), 1.0F);
  return values;
}

TEST_F(DeviceTest, ThreadsOfABlockMeetAndShareMemory) {
  const std::vector<float> x = Count(384);
  const Memory y = device->Allocate(3 * sizeof(float));
  Launch<SumKernel>(*stream, {.blocks = 3, .threads = 128, .shared_bytes = 16},
                    {stream->Upload(std::span(x)), reinterpret_cast<float*>(y.data()), true});
  const std::vector<float> sums = Read<float>(y, 3);
  for (size_t b = 0; b < 3; ++b)
    EXPECT_EQ(sums[b],
              std::accumulate(x.begin() + static_cast<std::ptrdiff_t>(128 * b),
                              x.begin() + static_cast<std::ptrdiff_t>(128 * (b + 1)), 0.0F));
}

TEST_F(DeviceTest, AMissingBarrierIsSeen) {
  const std::vector<float> x = Count(128);
  const Memory y = device->Allocate(sizeof(float));
  int num_wrong = 0;
  for (int i = 0; i < 20; ++i) {
    Launch<SumKernel>(*stream, {.blocks = 1, .threads = 128, .shared_bytes = 16},
                      {stream->Upload(std::span(x)), reinterpret_cast<float*>(y.data()), false});
    if (std::isnan(Read<float>(y, 1)[0])) ++num_wrong;
  }
  EXPECT_GT(num_wrong, 0);
}

TEST_F(DeviceTest, ScratchThatGrowsWaitsForWhatUsesItAndKeepsUploads) {
  const std::vector<float> x = Count(128);
  const float* const uploaded = stream->Upload(std::span(x));
  std::byte* const small = stream->Scratch(64);
  EXPECT_EQ(stream->Scratch(32), small);
  stream->Fill(small, 1, 64);
  auto* const large = reinterpret_cast<float*>(stream->Scratch(1 << 20));
  const std::vector<float> zeros(128);
  stream->Upload(std::span(zeros));
  Launch<SumKernel>(*stream, {.blocks = 1, .threads = 128, .shared_bytes = 16},
                    {uploaded, large, true});
  float sum = 0;
  stream->Copy(&sum, large, sizeof(sum));
  stream->Synchronize();
  EXPECT_EQ(sum, std::accumulate(x.begin(), x.end(), 0.0F));
}

// y [16, 8] = a [16, 16] b [8, 16]^T, from shared memory, where a and b come as late copies.
struct ProductKernel {
  struct Args {
    const uint16_t* a;
    const uint16_t* b;
    float* y;
    bool waits;
  };
  static constexpr int kThreads = 32;
  static WIDELOAD_DEVICE void Run(const Args& args) {
    auto* a = reinterpret_cast<uint16_t*>(SharedMemory());
    uint16_t* b = a + 256;
    const int64_t mine = int64_t{8} * Lane();
    CopyAsync16(a + mine, args.a + mine, 16);
    if (Lane() < 16) CopyAsync16(b + mine, args.b + mine, 16);
    CommitCopies();
    if (args.waits) WaitCopies<0>();
    SyncBlock();
    uint32_t a_fragments[4];
    uint32_t b_fragments[2];
    LoadMatrices4(a_fragments, a + int64_t{16} * (Lane() % 16) + int64_t{8} * (Lane() / 16));
    LoadMatrices2(b_fragments, b + int64_t{16} * (Lane() % 8) + int64_t{8} * (Lane() / 8 % 2));
    float sums[4] = {};
    MultiplyMatrices(sums, a_fragments, b_fragments);
    for (int i = 0; i < 4; ++i)
      args.y[(Lane() / 4 + i / 2 * 8) * 8 + Lane() % 4 * 2 + i % 2] = sums[i];
  }
};

TEST_F(DeviceTest, MatricesAreLoadedAndMultipliedAsTensorCoresDo) {
  std::vector<uint16_t> a(256);
  std::vector<uint16_t> b(128);
  for (size_t i = 0; i < a.size(); ++i) a[i] = ToBf16(static_cast<float>(i % 23) - 11);
  for (size_t i = 0; i < b.size(); ++i) b[i] = ToBf16(static_cast<float>(i % 17) / 4 - 2);
  const Memory y = device->Allocate(128 * sizeof(float));
  for (const bool waits : {true, false}) {
    Launch<ProductKernel>(
        *stream, {.blocks = 1, .threads = 32, .shared_bytes = 768},
        {stream->Upload(std::span<const uint16_t>(a)), stream->Upload(std::span<const uint16_t>(b)),
         reinterpret_cast<float*>(y.data()), waits});
    const std::vector<float> found = Read<float>(y, 128);
    for (size_t row = 0; row < 16; ++row)
      for (size_t column = 0; column < 8; ++column) {
        float sum = 0;
        for (size_t k = 0; k < 16; ++k)
          sum += FromBf16(a[row * 16 + k]) * FromBf16(b[column * 16 + k]);
        // Copies that nobody waited for have not been made.
        if (waits)
          ASSERT_EQ(found[row * 8 + column], sum) << row << ", " << column;
        else
          ASSERT_TRUE(std::isnan(found[row * 8 + column]));
      }
  }
}

TEST_F(DeviceTest, WorkIsDoneNoSoonerThanItIsWaitedFor) {
  const Memory x = device->Allocate(4);
  std::vector<float> value = {1};
  stream->Copy(x.data(), value.data(), 4);
  value[0] = 2;  // too early
  EXPECT_EQ(Read<float>(x, 1)[0], 2);
}

TEST_F(DeviceTest, WhatIsWrittenToAStagedRoomIsSentWithIt) {
  const Memory y = device->Allocate(3 * sizeof(float));
  for (const float value : {1.0F, 2.0F}) {
    const Staged<float> first = stream->Stage<float>(3);
    const Staged<float> second = stream->Stage<float>(3);
    std::ranges::fill(first.host, value);
    std::ranges::fill(second.host, -value);
    stream->Send(first);
    stream->Send(second);
    stream->Copy(y.data(), first.device, 3 * sizeof(float));
    EXPECT_EQ(Read<float>(y, 3), std::vector<float>(3, value));
  }
}

TEST_F(DeviceTest, AStreamWaitsForTheWorkOfAnother) {
  const std::unique_ptr<Stream> other = device->MakeStream();
  const std::unique_ptr<Event> event = device->MakeEvent();
  const Memory x = device->Allocate(4);
  const float value = 3;
  float found = 0;
  other->Copy(x.data(), &value, 4);
  other->Record(*event);
  stream->WaitFor(*event);
  stream->Copy(&found, x.data(), 4);
  stream->Synchronize();
  EXPECT_EQ(found, 3);
}

TEST_F(DeviceTest, MoreMemoryThanThereIsIsRefused) {
  const std::unique_ptr<Device> small = MakeEmulatedDevice(1 << 20);
  const Memory half = small->Allocate(1 << 19);
  EXPECT_THROW(static_cast<void>(small->Allocate(1 << 20)), Error);
  EXPECT_EQ(small->Allocate(1 << 18).num_bytes(), 1 << 18);
}

TEST_F(DeviceTest, FreedMemoryIsOnePieceAgain) {
  const std::unique_ptr<Device> small = MakeEmulatedDevice(1 << 20);
  std::vector<Memory> pieces;
  for (int i = 0; i < 16; ++i) pieces.push_back(small->Allocate(60 << 10));
  for (const size_t i : {3, 4, 2, 0, 1}) pieces[i] = Memory();
  pieces.clear();
  EXPECT_EQ(small->Allocate(1 << 20).num_bytes(), 1 << 20);
}

TEST_F(DeviceTest, MemoryIsFreedWhenTheWorkHasBeenDone) {
  const std::vector<float> value = {5};
  std::vector<float> found = {0};
  Memory x = device->Allocate(4);
  stream->Copy(x.data(), value.data(), 4);
  stream->Copy(found.data(), x.data(), 4);
  x = Memory();
  EXPECT_EQ(found[0], 5);
}

TEST(Devices, OfOneMachineReachEachOthersMemoryAndWaitForEachOther) {
  const auto devices = MakeEmulatedDevices(2);
  const auto first = devices[0]->MakeStream();
  const auto second = devices[1]->MakeStream();
  const auto event = devices[0]->MakeEvent();
  const Memory x = devices[0]->Allocate(4);
  const Memory y = devices[1]->Allocate(4);
  const std::vector<float> value = {6};
  std::vector<float> found = {0};
  first->Copy(x.data(), value.data(), 4);
  first->Copy(y.data(), x.data(), 4);
  first->Record(*event);
  second->WaitFor(*event);
  second->Copy(found.data(), y.data(), 4);
  second->Synchronize();
  EXPECT_EQ(found[0], 6);
}

using DeviceDeathTest = DeviceTest;

TEST_F(DeviceDeathTest, MemoryOfTheDeviceIsNotForTheHost) {
  const Memory x = device->Allocate(64);
  EXPECT_DEATH(x.data()[0] = std::byte{1}, "");
}

struct WriteKernel {
  struct Args {
    std::byte* to;
    int64_t index;
  };
  static constexpr int kThreads = 32;
  static WIDELOAD_DEVICE void Run(const Args& args) { args.to[args.index] = std::byte{1}; }
};

TEST_F(DeviceDeathTest, NothingIsWrittenBehindMemory) {
  const Memory x = device->Allocate(256);
  Launch<WriteKernel>(*stream, {}, {x.data(), 255});
  stream->Synchronize();
  EXPECT_DEATH(
      {
        Launch<WriteKernel>(*stream, {}, {x.data(), 256});
        stream->Synchronize();
      },
      "");
}

struct DivergingKernel {
  struct Args {};
  static constexpr int kThreads = 64;
  static WIDELOAD_DEVICE void Run(const Args&) {
    if (Thread() % 2 == 0) SyncWarp();
  }
};

TEST_F(DeviceDeathTest, LanesThatDoNotMeetEndTheProcess) {
  EXPECT_DEATH(
      {
        Launch<DivergingKernel>(*stream, {.threads = 64}, {});
        stream->Synchronize();
      },
      "32 threads have ended, 32 wait for their warp");
}

}  // namespace
}  // namespace wideload::device
