// What every device promises (device/device.h), kernels aside.
#include "device_conformance.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "base/error.h"

namespace wideload::device {
namespace {

struct DeviceConformance : testing::Test {
  void SetUp() override {
    std::string why_none;
    device = DeviceUnderTest(why_none);
    if (device == nullptr) GTEST_SKIP() << "not run on a GPU: " << why_none;
    stream = device->MakeStream();
  }

  std::vector<uint8_t> Read(const std::byte* data, int64_t num_bytes) const {
    std::vector<uint8_t> bytes(static_cast<size_t>(num_bytes), 0xee);
    stream->Copy(bytes.data(), data, num_bytes);
    stream->Synchronize();
    return bytes;
  }

  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream;
};

std::vector<uint8_t> Counted(size_t n, uint8_t first) {
  std::vector<uint8_t> bytes(n);
  std::iota(bytes.begin(), bytes.end(), first);
  return bytes;
}

TEST_F(DeviceConformance, PropertiesAreThoseOfAUsableDevice) {
  const Properties& properties = device->properties();
  EXPECT_FALSE(properties.name.empty());
  EXPECT_GE(properties.major, 8);
  EXPECT_GE(properties.num_multiprocessors, 1);
  EXPECT_GE(properties.memory_bytes, 1 << 24);
  EXPECT_GE(properties.shared_bytes_per_block, 48 << 10);
}

TEST_F(DeviceConformance, MemoryIsZeroAndAligned) {
  for (const int64_t num_bytes : {0, 1, 255, 4096, 1'000'003}) {
    for (int again = 0; again < 2; ++again) {  // memory that was used and given back, too
      const Memory memory = device->Allocate(num_bytes);
      EXPECT_EQ(memory.num_bytes(), num_bytes);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % 256, 0U);
      EXPECT_EQ(Read(memory.data(), num_bytes),
                std::vector<uint8_t>(static_cast<size_t>(num_bytes)));
      stream->Fill(memory.data(), 0xab, num_bytes);
      stream->Synchronize();
      const Memory host = device->AllocateHost(num_bytes);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(host.data()) % 256, 0U);
      for (const std::byte byte : host.bytes()) ASSERT_EQ(byte, std::byte{0});
      if (num_bytes > 0) std::memset(host.data(), 0xab, static_cast<size_t>(num_bytes));
    }
  }
}

TEST_F(DeviceConformance, CopiesAndFillsGoBetweenAnyMemoriesInOrder) {
  constexpr int64_t kBytes = 100'001;
  const std::vector<uint8_t> ordinary = Counted(kBytes, 3);
  const Memory host = device->AllocateHost(kBytes);
  const Memory a = device->Allocate(kBytes);
  const Memory b = device->Allocate(kBytes);
  stream->Fill(a.data(), 0x5c, kBytes);
  stream->Copy(a.data() + 1, ordinary.data() + 1, kBytes - 2);
  stream->Copy(b.data(), a.data(), kBytes);
  stream->Copy(host.data(), b.data(), kBytes);
  stream->Fill(b.data(), 0x11, 10);
  stream->Copy(b.data(), b.data(), 0);
  stream->Synchronize();
  std::vector<uint8_t> expected = ordinary;
  expected.front() = expected.back() = 0x5c;
  EXPECT_EQ(std::memcmp(host.data(), expected.data(), kBytes), 0);
  std::fill_n(expected.begin(), 10, uint8_t{0x11});
  EXPECT_EQ(Read(b.data(), kBytes), expected);
}

TEST_F(DeviceConformance, AStreamWaitsForWhatAnotherHasRecorded) {
  constexpr int64_t kBytes = 4 << 20;
  const std::unique_ptr<Stream> other = device->MakeStream(/*is_urgent=*/true);
  const std::unique_ptr<Event> written = device->MakeEvent();
  const std::unique_ptr<Event> read = device->MakeEvent();
  const Memory a = device->Allocate(kBytes);
  const Memory b = device->Allocate(kBytes);
  for (uint8_t round = 1; round <= 20; ++round) {
    for (uint8_t i = 0; i < 8; ++i) stream->Fill(a.data(), static_cast<uint8_t>(round + i), kBytes);
    stream->Record(*written);
    other->WaitFor(*written);
    other->Copy(b.data(), a.data(), kBytes);
    other->Record(*read);
    stream->WaitFor(*read);  // or the next round's bytes come too soon
  }
  stream->Synchronize();
  EXPECT_TRUE(written->IsReached());
  EXPECT_TRUE(read->IsReached());
  EXPECT_EQ(Read(b.data(), kBytes), std::vector<uint8_t>(kBytes, 27));
}

TEST_F(DeviceConformance, AnEventThatNobodyRecordedIsReachedAndNoWait) {
  const std::unique_ptr<Event> event = device->MakeEvent();
  EXPECT_TRUE(event->IsReached());
  stream->WaitFor(*event);
  stream->Synchronize();
}

TEST_F(DeviceConformance, WhatWasUploadedStaysUntilSynchronize) {
  for (int round = 0; round < 3; ++round) {
    std::vector<const uint8_t*> uploads;
    std::vector<uint8_t> values;
    for (uint8_t i = 0; i < 5; ++i) {
      values = Counted(400'000, i);
      uploads.push_back(stream->Upload(std::span<const uint8_t>(values)));
    }
    const Memory copies = device->Allocate(2'000'000);
    for (size_t i = 0; i < 5; ++i) stream->Copy(copies.data() + i * 400'000, uploads[i], 400'000);
    stream->Synchronize();
    for (uint8_t i = 0; i < 5; ++i)
      EXPECT_EQ(Read(copies.data() + int64_t{i} * 400'000, 400'000), Counted(400'000, i));
  }
}

TEST_F(DeviceConformance, MoreMemoryThanThereIsIsRefusedAndHarmsNothing) {
  for (const auto allocate : {&Device::Allocate, &Device::AllocateHost}) {
    try {
      (device.get()->*allocate)(int64_t{1} << 50);
      FAIL() << "allocated";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kResource) << error.what();
    }
  }
  const Memory memory = device->Allocate(100);
  EXPECT_EQ(Read(memory.data(), 100), std::vector<uint8_t>(100));
}

TEST_F(DeviceConformance, EachThreadHasAStreamOfItsOwn) {
  std::vector<std::jthread> threads;
  std::vector<uint8_t> results(4);
  for (uint8_t t = 0; t < 4; ++t)
    threads.emplace_back([this, t, &results] {
      const std::unique_ptr<Stream> own = device->MakeStream();
      const Memory memory = device->Allocate(10'000);
      const std::unique_ptr<Event> event = device->MakeEvent();
      own->Fill(memory.data(), static_cast<uint8_t>(t + 1), 10'000);
      own->Record(*event);
      own->Copy(&results[t], memory.data() + 9'999, 1);
      own->Synchronize();
    });
  threads.clear();
  EXPECT_EQ(results, (std::vector<uint8_t>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace wideload::device
