#include "runtime/processes/wire.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::runtime {

void ByteWriter::Append(const void* data, size_t num_bytes) {
  if (num_bytes == 0) return;
  const auto* const first = static_cast<const std::byte*>(data);
  bytes_.insert(bytes_.end(), first, first + num_bytes);
}

std::span<const std::byte> ByteReader::TakeBytes(size_t num_bytes) {
  if (num_bytes > bytes_.size() - position_)
    Throw(ErrorKind::kCorrupt, "a message of {} bytes ends before {} more at {}", bytes_.size(),
          num_bytes, position_);
  const std::span<const std::byte> taken = bytes_.subspan(position_, num_bytes);
  position_ += num_bytes;
  return taken;
}

std::span<const std::byte> ByteReader::TakeArray(uint64_t count, size_t element_bytes) {
  constexpr size_t kAlignment = ByteWriter::kAlignment;
  const size_t begin = (position_ + kAlignment - 1) / kAlignment * kAlignment;
  TakeBytes(begin - position_);
  if (count > (bytes_.size() - position_) / element_bytes)
    Throw(ErrorKind::kCorrupt, "a message of {} bytes says that {} elements of {} bytes come at {}",
          bytes_.size(), count, element_bytes, position_);
  return TakeBytes(static_cast<size_t>(count) * element_bytes);
}

}  // namespace wideload::runtime
