// Rows of an exchange in memory of devices, for ranks that are threads of one process: each rank
// has memory for the rows that come to it, a stream that does its work, and events that others'
// streams wait for.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "device/device.h"
#include "exchange/row_mover.h"

namespace wideload::exchange {

// The copies of one call of RowMover::CopyRows. The tables lie in memory of the device.
struct RowCopies {
  const std::byte* const* from = nullptr;  // [num_rows]
  std::byte* const* to = nullptr;          // [num_rows]
  int64_t row_bytes = 0;
  int64_t num_rows = 0;  // at least 1
};
// Puts the kernel that makes them on a stream.
using CopyRowsKernel = std::function<void(device::Stream& stream, const RowCopies& copies)>;

// Bytes of device memory for the rows of one rank.
int64_t DeviceRowBytes(const ExchangeShape& shape);

// What all ranks share. Make it before the rank threads; destroy it after them, when the work of
// their streams has been done.
class DeviceRows {
 public:
  // devices [R]: where each rank's rows lie and its stream is; several ranks may name the same one,
  // and what one device does reaches memory of the others. They outlive this object.
  // Memory: DeviceRowBytes for each rank. Errors: kResource.
  DeviceRows(const ExchangeShape& shape, std::span<device::Device* const> devices,
             CopyRowsKernel copy);
  ~DeviceRows();

  // For the Exchange of a rank, by its thread. `stream`, of the rank's device, gets the copies of
  // rows; the caller puts there what writes the rows of a chunk before Dispatch, what reads x_rows
  // and writes y_rows between Receive and Return, and what reads returned rows after WaitReturns.
  // Outlives neither this object nor the stream.
  std::unique_ptr<RowMover> MoverOf(int rank, device::Stream& stream);

 private:
  class Mover;
  device::Event& EventOf(int rank, Direction direction, int64_t round) const;

  ExchangeShape shape_;
  CopyRowsKernel copy_;
  std::vector<device::Memory> rows_;                    // [R]
  std::vector<std::unique_ptr<device::Event>> events_;  // [R * kNumDirections * B]
};

}  // namespace wideload::exchange
