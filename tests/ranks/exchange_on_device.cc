#include "tests/ranks/exchange_on_device.h"

#include <utility>

#include "base/error.h"
#include "exchange/delayed_fabric.h"
#include "exchange/device_rows.h"
#include "tests/ranks/load_kernels.h"

namespace wideload::exchange {
namespace {

class DeviceLoadRows final : public LoadRows {
 public:
  DeviceLoadRows(const Load& load, device::Stream& stream)
      : hidden_(load.hidden), top_k_(load.top_k), stream_(stream) {
    device::Device& device = stream.device();
    for (int b = 0; b < load.num_buffers; ++b)
      kept_.push_back(device.Allocate(load.max_rows * hidden_ * kFloat));
    sums_ = device.Allocate(load.max_rows * hidden_ * kFloat);
  }

  const std::byte* Keep(int64_t buffer, std::span<const float> rows) override {
    std::byte* const kept = kept_[static_cast<size_t>(buffer)].data();
    stream_.Copy(kept, stream_.Upload(rows), std::ssize(rows) * kFloat);
    return kept;
  }
  void Apply(int32_t expert, const Exchange::SlotRows& rows) override {
    if (rows.x_rows.empty()) return;
    ApplyExperts(stream_,
                 {stream_.Upload(rows.x_rows), stream_.Upload(rows.y_rows), hidden_, expert},
                 std::ssize(rows.x_rows));
  }
  void Combine(std::span<const std::byte* const> rows, std::span<const float> weights,
               float* out) override {
    const int64_t num_tokens = std::ssize(rows) / top_k_;
    if (num_tokens == 0) return;
    auto* const sums = reinterpret_cast<float*>(sums_.data());
    SumRows(stream_, {stream_.Upload(rows), stream_.Upload(weights), sums, hidden_, top_k_},
            num_tokens);
    stream_.Copy(out, sums, num_tokens * hidden_ * kFloat);
  }
  void Pause() override { stream_.Synchronize(); }
  void Finish() override { stream_.Synchronize(); }

 private:
  static constexpr int64_t kFloat = sizeof(float);

  int64_t hidden_;
  int top_k_;
  device::Stream& stream_;
  std::vector<device::Memory> kept_;  // [B]
  device::Memory sums_;
};

// Leaves out waits.
class HastyMover final : public RowMover {
 public:
  HastyMover(std::unique_ptr<RowMover> inner, std::optional<Direction> left_out)
      : inner_(std::move(inner)), left_out_(left_out) {}
  const ExchangeShape& shape() const override { return inner_->shape(); }
  std::byte* Place(int dst, int64_t offset) const override { return inner_->Place(dst, offset); }
  void CopyRows(std::span<const std::byte* const> from, std::span<std::byte* const> to,
                int64_t row_bytes) override {
    inner_->CopyRows(from, to, row_bytes);
  }
  void Record(Direction direction, int64_t round) override { inner_->Record(direction, round); }
  void WaitFor(int source, Direction direction, int64_t round) override {
    if (direction != left_out_) inner_->WaitFor(source, direction, round);
  }

 private:
  std::unique_ptr<RowMover> inner_;
  std::optional<Direction> left_out_;
};

// The fabric of a rank that somebody else owns.
class BorrowedFabric final : public Fabric {
 public:
  explicit BorrowedFabric(Fabric& fabric) : fabric_(fabric) {}
  int rank() const override { return fabric_.rank(); }
  int size() const override { return fabric_.size(); }
  int64_t segment_bytes() const override { return fabric_.segment_bytes(); }
  std::byte* Window(int dst, int64_t offset) const override { return fabric_.Window(dst, offset); }
  bool IsReachable(int dst) const override { return fabric_.IsReachable(dst); }
  void Signal(int dst, const Message& message) override { fabric_.Signal(dst, message); }
  void Expect(int source, const Message& message) override { fabric_.Expect(source, message); }
  bool Test(int64_t cell, uint32_t tag) override { return fabric_.Test(cell, tag); }
  bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) override {
    return fabric_.Wait(cell, tag, keep_waiting);
  }

 private:
  Fabric& fabric_;
};

}  // namespace

LoadResult RunOnDevices(const Load& load, const DeviceRun& run) {
  const ExchangeShape shape = ShapeOf(load);
  std::string why_none;
  const auto devices = DevicesUnderTest(run.num_devices, why_none);
  WIDELOAD_CHECK(!devices.empty(), "{}", why_none);
  std::vector<device::Device*> device_of;
  for (size_t r = 0; r < static_cast<size_t>(load.num_ranks); ++r)
    device_of.push_back(devices[r * devices.size() / static_cast<size_t>(load.num_ranks)].get());
  DeviceRows rows(shape, device_of, [&](device::Stream& stream, const RowCopies& copies) {
    const CopyArgs args = {copies.from, copies.to, copies.row_bytes};
    run.copies_as_the_engine ? CopyRowsAsTheEngine(stream, args, copies.num_rows)
                             : CopyRowsPlainly(stream, args, copies.num_rows);
  });
  comm::LocalGroup group(load.num_ranks, {.deadline = std::chrono::seconds(60)});
  LocalFabrics fabrics(load.num_ranks, SegmentBytes(shape));
  LoadResult result;
  result.values.resize(static_cast<size_t>(load.num_layers * load.num_tokens * load.hidden));
  result.num_rounds.resize(static_cast<size_t>(load.num_ranks));
  result.outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
    const int rank = communicator.rank();
    DelayedFabric fabric(std::make_unique<BorrowedFabric>(fabrics.rank(rank)), run.delay,
                         std::chrono::steady_clock::now,
                         [&](int source) { return run.delay.count() > 0 && source != rank; });
    const auto stream = device_of[static_cast<size_t>(rank)]->MakeStream();
    HastyMover mover(rows.MoverOf(rank, *stream), run.left_out);
    Exchange exchange(shape, fabric, communicator, nullptr, &mover);
    DeviceLoadRows on_device(load, *stream);
    RunRank(load, exchange, communicator, result.values, {}, &on_device);
    result.num_rounds[static_cast<size_t>(rank)] = exchange.traffic().num_rounds;
  });
  return result;
}

}  // namespace wideload::exchange
