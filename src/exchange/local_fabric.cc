#include "exchange/local_fabric.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::exchange {
namespace {

constexpr uintptr_t kSegmentAlignment = 128;

}  // namespace

class LocalFabrics::LocalFabric final : public Fabric {
 public:
  LocalFabric(const LocalFabrics& fabrics, int rank) : fabrics_(fabrics), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return fabrics_.size(); }
  int64_t segment_bytes() const override { return fabrics_.segment_bytes_; }
  std::byte* Window(int dst, int64_t offset) const override {
    return fabrics_.segments_[static_cast<size_t>(dst)] + offset;
  }
  bool IsReachable(int) const override { return true; }

  void Signal(int dst, const Message& message) override {
    CellAt(Window(dst, 0), message.cell).Publish(message.tag);
  }
  void Expect(int, const Message&) override {}
  bool Test(int64_t cell, uint32_t tag) override {
    return CellAt(Window(rank_, 0), cell).Load() == tag;
  }
  bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) override {
    return WaitFor(
        CellAt(Window(rank_, 0), cell), fabrics_.ladder_,
        [tag](uint32_t value) { return value == tag; }, keep_waiting);
  }

 private:
  const LocalFabrics& fabrics_;
  int rank_;
};

LocalFabrics::LocalFabrics(int num_ranks, int64_t segment_bytes, int total_threads)
    : segment_bytes_(segment_bytes), ladder_(WaitLadder::For(std::max(num_ranks, total_threads))) {
  WIDELOAD_CHECK(num_ranks >= 1 && segment_bytes > 0, "{} segments of {} bytes", num_ranks,
                 segment_bytes);
  for (int r = 0; r < num_ranks; ++r) {
    buffers_.emplace_back(segment_bytes + static_cast<int64_t>(kSegmentAlignment));
    const auto address = reinterpret_cast<uintptr_t>(buffers_.back().data());
    segments_.push_back(buffers_.back().data() +
                        (kSegmentAlignment - address % kSegmentAlignment) % kSegmentAlignment);
    fabrics_.push_back(std::make_unique<LocalFabric>(*this, r));
  }
}

LocalFabrics::~LocalFabrics() = default;

Fabric& LocalFabrics::rank(int r) {
  WIDELOAD_CHECK(r >= 0 && r < size(), "rank {} of {}", r, size());
  return *fabrics_[static_cast<size_t>(r)];
}

}  // namespace wideload::exchange
