// What kernels of GPUs do with rows that no op of compute/ops.h does.
#include <cstring>
#include <vector>

#include "compute/cuda/kernels.h"
#include "ops_conformance.h"
#include "tensor/buffer.h"

namespace wideload::compute {
namespace {

// Any alignment of the rows, and rows that end within and behind what a block copies.
TEST_P(OpsConformance, CopyRowsCopiesBytesFromPointersToPointers) {
  constexpr int64_t kRows = 5;
  constexpr int64_t kRoom = 20000;
  const Exec exec = With(1);
  Buffer from(kRows * kRoom, TestMemory());
  Buffer to(kRows * kRoom, TestMemory());
  for (const int64_t row_bytes : {1, 6, 16, 4096, 8192, 8196, 17008}) {
    for (const int64_t offset : {0, 4, 6, 17}) {
      for (int64_t i = 0; i < from.num_bytes(); ++i)
        from.data()[i] = static_cast<std::byte>(i * 7 + i / 251);
      std::memset(to.data(), 0xee, static_cast<size_t>(to.num_bytes()));
      std::vector<const std::byte*> sources;
      std::vector<std::byte*> places;
      for (int64_t r = 0; r < kRows; ++r) {
        sources.push_back(from.data() + r * kRoom + (r % 2 == 0 ? 0 : offset));
        places.push_back(to.data() + (kRows - 1 - r) * kRoom + offset);
      }
      const std::span<const std::byte* const> source_span(sources);
      const std::span<std::byte* const> place_span(places);
      exec.device_kernels->copy_rows(*exec.stream, {.from = exec.stream->Upload(source_span),
                                                    .to = exec.stream->Upload(place_span),
                                                    .row_bytes = row_bytes,
                                                    .rows = kRows});
      exec.stream->Synchronize();
      for (size_t r = 0; r < places.size(); ++r) {
        ASSERT_EQ(std::memcmp(places[r], sources[r], static_cast<size_t>(row_bytes)), 0)
            << row_bytes << " bytes, row " << r;
        ASSERT_EQ(places[r][row_bytes], std::byte{0xee}) << row_bytes;
      }
    }
  }
}

}  // namespace
}  // namespace wideload::compute
