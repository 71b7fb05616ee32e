#include "exchange/copy_rows.h"

#include <gtest/gtest.h>

#include "tensor/buffer.h"

namespace wideload::exchange {
namespace {

TEST(CopyRows, BothWaysCopyExactlyTheBytesAsked) {
  Buffer source(1024);
  for (int64_t i = 0; i < source.num_bytes(); ++i) source.data()[i] = std::byte(i * 7 + 1);
  for (const int64_t num_bytes : {0, 1, 63, 64, 65, 200, 384, 1000}) {
    for (const int64_t offset : {0, 3}) {
      Buffer plain(1088);
      Buffer streamed(1088);
      CopyRow(plain.data(), source.data() + offset, num_bytes);
      CopyRowNonTemporal(streamed.data(), source.data() + offset, num_bytes);
      FenceStores();
      for (int64_t i = 0; i < plain.num_bytes(); ++i) {
        const std::byte expected = i < num_bytes ? source.data()[offset + i] : std::byte{0};
        ASSERT_EQ(plain.data()[i], expected);
        ASSERT_EQ(streamed.data()[i], expected);
      }
    }
  }
}

}  // namespace
}  // namespace wideload::exchange
