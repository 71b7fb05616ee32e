#include "tensor/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace wideload {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kMinMapped = 4 << 20;  // where one system call costs less than clearing
constexpr int64_t kMinBlock = 1 << 16;

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

bool IsMapped(int64_t num_bytes) { return num_bytes >= kMinMapped; }

}  // namespace

Buffer::Buffer(int64_t num_bytes, MemorySource* source) : num_bytes_(num_bytes), source_(source) {
  WIDELOAD_CHECK(num_bytes >= 0, "a buffer of {} bytes", num_bytes);
  if (num_bytes == 0) return;
  if (source_ != nullptr) {
    data_ = source_->Allocate(num_bytes);
    return;
  }
  if (IsMapped(num_bytes)) {
    void* mapping = ::mmap(nullptr, static_cast<size_t>(num_bytes), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) Throw(ErrorKind::kResource, "cannot allocate {} bytes", num_bytes);
    data_ = static_cast<std::byte*>(mapping);
    return;
  }
  const auto size = static_cast<size_t>(RoundUp(num_bytes, kAlignment));
  data_ = static_cast<std::byte*>(std::aligned_alloc(kAlignment, size));
  if (data_ == nullptr) Throw(ErrorKind::kResource, "cannot allocate {} bytes", num_bytes);
  std::memset(data_, 0, size);
}

Buffer Buffer::Over(std::span<std::byte> memory) {
  WIDELOAD_CHECK(reinterpret_cast<uintptr_t>(memory.data()) % kAlignment == 0,
                 "a buffer over memory at {}", fmt::ptr(memory.data()));
  Buffer buffer;
  buffer.data_ = memory.data();
  buffer.num_bytes_ = static_cast<int64_t>(memory.size());
  buffer.is_view_ = true;
  return buffer;
}

Buffer::~Buffer() {
  if (is_view_ || data_ == nullptr) return;
  if (source_ != nullptr) {
    source_->Free(data_, num_bytes_);
  } else if (IsMapped(num_bytes_)) {
    ::munmap(data_, static_cast<size_t>(num_bytes_));
  } else {
    std::free(data_);
  }
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      num_bytes_(std::exchange(other.num_bytes_, 0)),
      is_view_(std::exchange(other.is_view_, false)),
      source_(other.source_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(num_bytes_, other.num_bytes_);
  std::swap(is_view_, other.is_view_);
  std::swap(source_, other.source_);
  return *this;
}

TensorView Buffer::View(DType dtype, const Shape& shape) const {
  const TensorView view(dtype, shape, data_);
  WIDELOAD_CHECK(view.num_bytes() <= num_bytes_, "view of {} bytes in a buffer of {}",
                 view.num_bytes(), num_bytes_);
  return view;
}

int64_t Arena::PieceBytes(int64_t num_bytes) { return RoundUp(num_bytes, kAlignment); }

Buffer Arena::Take(int64_t num_bytes) {
  const int64_t need = PieceBytes(num_bytes);
  WIDELOAD_CHECK(num_bytes >= 0 && need <= static_cast<int64_t>(block_.size()) - used_bytes_,
                 "a piece of {} bytes after {} of {}", num_bytes, used_bytes_, block_.size());
  const std::span<std::byte> piece =
      block_.subspan(static_cast<size_t>(used_bytes_), static_cast<size_t>(num_bytes));
  used_bytes_ += need;
  return Buffer::Over(piece);
}

std::byte* Workspace::TakeBytes(int64_t num_bytes) {
  const int64_t need = RoundUp(std::max<int64_t>(num_bytes, 1), kAlignment);
  while (at_.block < blocks_.size() && at_.in_block + need > blocks_[at_.block].num_bytes()) {
    ++at_.block;
    at_.in_block = 0;
  }
  if (at_.block == blocks_.size()) {
    blocks_.emplace_back(std::max({need, kMinBlock, capacity_bytes()}), source_);
    ++num_allocations_;
  }
  std::byte* piece = blocks_[at_.block].data() + at_.in_block;
  at_.in_block += need;
  at_.total += need;
  most_total_ = std::max(most_total_, at_.total);
  return piece;
}

void Workspace::Reset() {
  if (blocks_.size() > 1) {
    const int64_t need = RoundUp(most_total_, kMinBlock);
    blocks_.clear();
    blocks_.emplace_back(need, source_);
    ++num_allocations_;
  }
  at_ = {};
  most_total_ = 0;
}

int64_t Workspace::capacity_bytes() const {
  int64_t total = 0;
  for (const Buffer& block : blocks_) total += block.num_bytes();
  return total;
}

}  // namespace wideload
