#include "runtime/processes/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::runtime {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::byte> Written() {
  std::vector<std::byte> bytes;
  ByteWriter writer(bytes);
  writer.Put(uint8_t{7});
  writer.PutAll(std::span<const int64_t>(std::vector<int64_t>{-1, int64_t{1} << 40}));
  writer.PutText("rank");
  writer.PutAll(std::span<const float>());
  return bytes;
}

TEST(Wire, ReadsBackWhatWasWritten) {
  const std::vector<std::byte> bytes = Written();
  ByteReader reader(bytes);
  EXPECT_EQ(reader.Take<uint8_t>(), 7);
  const std::span<const int64_t> numbers = reader.TakeAll<int64_t>();
  EXPECT_THAT(numbers, ElementsAre(-1, int64_t{1} << 40));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(numbers.data()) % alignof(int64_t), 0);
  EXPECT_EQ(reader.TakeText(), "rank");
  EXPECT_FALSE(reader.is_at_end());
  EXPECT_THAT(reader.TakeAll<float>(), IsEmpty());
  EXPECT_TRUE(reader.is_at_end());
}

TEST(Wire, RefusesEveryMessageThatWasCutOff) {
  const std::vector<std::byte> bytes = Written();
  for (size_t size = 0; size < bytes.size(); ++size) {
    ByteReader reader({bytes.data(), size});
    EXPECT_THROW(
        {
          reader.Take<uint8_t>();
          reader.TakeAll<int64_t>();
          reader.TakeText();
          reader.TakeAll<float>();
        },
        Error)
        << size;
  }
}

TEST(Wire, RefusesACountWhoseBytesDoNotFitANumber) {
  std::vector<std::byte> bytes;
  ByteWriter(bytes).Put(uint64_t{1} << 62);
  EXPECT_THROW(ByteReader(bytes).TakeAll<int64_t>(), Error);
}

}  // namespace
}  // namespace wideload::runtime
