// Copies of rows into memory that another core or process will read. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace wideload::exchange {

// memcpy with ordinary stores, which leave the row in cache for its reader.
void CopyRow(std::byte* to, const std::byte* from, int64_t num_bytes);

// The same with non-temporal stores, for amounts that no cache would keep until they are read.
// `to` is 64-byte aligned. The calling thread must call FenceStores before it announces the rows.
void CopyRowNonTemporal(std::byte* to, const std::byte* from, int64_t num_bytes);
// After non-temporal copies, before the flag that announces them.
void FenceStores();

}  // namespace wideload::exchange
