#include "exchange/device_rows.h"

#include <utility>

#include "base/error.h"

namespace wideload::exchange {

// The offsets are those of the segments: what lies between the rows there takes a hundredth.
int64_t DeviceRowBytes(const ExchangeShape& shape) { return SegmentBytes(shape); }

class DeviceRows::Mover final : public RowMover {
 public:
  Mover(const DeviceRows& all, int rank, device::Stream& stream)
      : all_(all), rank_(rank), stream_(stream) {}

  const ExchangeShape& shape() const override { return all_.shape_; }
  std::byte* Place(int dst, int64_t offset) const override {
    return all_.rows_[static_cast<size_t>(dst)].data() + offset;
  }
  void CopyRows(std::span<const std::byte* const> from, std::span<std::byte* const> to,
                int64_t row_bytes) override {
    all_.copy_(stream_, {.from = stream_.Upload(from),
                         .to = stream_.Upload(to),
                         .row_bytes = row_bytes,
                         .num_rows = std::ssize(from)});
  }
  void Record(Direction direction, int64_t round) override {
    stream_.Record(all_.EventOf(rank_, direction, round));
  }
  void WaitFor(int source, Direction direction, int64_t round) override {
    stream_.WaitFor(all_.EventOf(source, direction, round));
  }

 private:
  const DeviceRows& all_;
  int rank_;
  device::Stream& stream_;
};

DeviceRows::DeviceRows(const ExchangeShape& shape, std::span<device::Device* const> devices,
                       CopyRowsKernel copy)
    : shape_((ValidateShape(shape), shape)), copy_(std::move(copy)) {
  WIDELOAD_CHECK(std::ssize(devices) == shape.num_ranks, "{} devices for {} ranks", devices.size(),
                 shape.num_ranks);
  for (device::Device* const device : devices) {
    rows_.push_back(device->Allocate(DeviceRowBytes(shape)));
    for (int i = 0; i < kNumDirections * shape.num_buffers; ++i)
      events_.push_back(device->MakeEvent());
  }
}

DeviceRows::~DeviceRows() = default;

std::unique_ptr<RowMover> DeviceRows::MoverOf(int rank, device::Stream& stream) {
  WIDELOAD_CHECK(rank >= 0 && rank < shape_.num_ranks, "rank {} of {}", rank, shape_.num_ranks);
  return std::make_unique<Mover>(*this, rank, stream);
}

device::Event& DeviceRows::EventOf(int rank, Direction direction, int64_t round) const {
  const int64_t index =
      (int64_t{rank} * kNumDirections + static_cast<int64_t>(direction)) * shape_.num_buffers +
      round % shape_.num_buffers;
  return *events_[static_cast<size_t>(index)];
}

}  // namespace wideload::exchange
