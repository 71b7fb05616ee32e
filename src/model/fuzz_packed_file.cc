// Any bytes as a file of packed experts: told what is wrong, and right only with the very header.
#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "model/packed_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;
  const model::PackedKey key{.kernels = "avx2",
                             .checkpoint = "cafe0123",
                             .layers = {1, 3},
                             .expert_bytes = {{100, 64}, {64, 65}}};
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const std::vector<std::byte> header = model::PackedHeader(key);
  // A whole header is out of a fuzzer's reach: the input replaces its beginning.
  std::vector<std::byte> mixed = header;
  std::ranges::copy(bytes.first(std::min(size, mixed.size())), mixed.begin());
  constexpr uint64_t kFileBytes = 4096 + 128 + 64 + 64 + 128;
  const bool is_right = model::PackedMismatch(mixed, kFileBytes, key).empty();
  WIDELOAD_CHECK(is_right == (mixed == header), "another header is taken");
  WIDELOAD_CHECK(!model::PackedMismatch(bytes, size, key).empty(), "{} bytes are taken", size);
  return 0;
}
