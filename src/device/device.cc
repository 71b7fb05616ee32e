#include "device/device.h"

#include <algorithm>
#include <utility>

#include "tensor/buffer.h"

namespace wideload::device {

Memory::~Memory() {
  if (data_ != nullptr) device_->Free(data_, is_host_);
}

Memory::Memory(Memory&& other) noexcept
    : device_(other.device_),
      data_(std::exchange(other.data_, nullptr)),
      num_bytes_(std::exchange(other.num_bytes_, 0)),
      is_host_(other.is_host_) {}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(num_bytes_, other.num_bytes_);
  std::swap(is_host_, other.is_host_);
  return *this;
}

class Device::Source final : public MemorySource {
 public:
  Source(Device& device, bool is_host) : device_(device), is_host_(is_host) {}
  std::byte* Allocate(int64_t num_bytes) override {
    return (is_host_ ? device_.AllocateHost(num_bytes) : device_.Allocate(num_bytes)).Release();
  }
  void Free(std::byte* data, int64_t) noexcept override { device_.Free(data, is_host_); }

 private:
  Device& device_;
  bool is_host_;
};

Device::Device()
    : memory_(std::make_unique<Source>(*this, false)),
      host_memory_(std::make_unique<Source>(*this, true)) {}
Device::~Device() = default;
MemorySource& Device::memory() { return *memory_; }
MemorySource& Device::host_memory() { return *host_memory_; }

void Stream::Synchronize() {
  Wait();
  // One block that holds what this time took several: later times allocate nothing.
  if (uploads_.size() > 1) {
    int64_t total = 0;
    for (const Block& block : uploads_) total += block.host.num_bytes();
    uploads_.clear();
    uploads_.push_back({device_.AllocateHost(total), device_.Allocate(total)});
  }
  num_uploaded_ = 0;
}

std::byte* Stream::Scratch(int64_t num_bytes) {
  if (num_bytes > scratch_.num_bytes()) {
    Wait();  // and not Synchronize: what was uploaded stays
    const int64_t size = std::max(num_bytes, 2 * scratch_.num_bytes());
    scratch_ = Memory();
    scratch_ = device_.Allocate(size);
  }
  return scratch_.data();
}

Staged<std::byte> Stream::StageBytes(int64_t num_bytes) {
  constexpr int64_t kAlignment = 256;
  constexpr int64_t kMinBlock = int64_t{1} << 20;
  const int64_t need = (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (uploads_.empty() || num_uploaded_ + need > uploads_.back().host.num_bytes()) {
    const int64_t size = std::max(need, kMinBlock);
    uploads_.push_back({device_.AllocateHost(size), device_.Allocate(size)});
    num_uploaded_ = 0;
  }
  const Block& block = uploads_.back();
  const int64_t begin = std::exchange(num_uploaded_, num_uploaded_ + need);
  return {{block.host.data() + begin, static_cast<size_t>(num_bytes)}, block.device.data() + begin};
}

const std::byte* Stream::UploadBytes(const std::byte* values, int64_t num_bytes) {
  const Staged<std::byte> staged = StageBytes(num_bytes);
  std::copy_n(values, num_bytes, staged.host.data());
  Send(staged);
  return staged.device;
}

}  // namespace wideload::device
