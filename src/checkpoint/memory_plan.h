// Adds up what a start will allocate and compares it with what the machine has, before anything is
// loaded. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace wideload::checkpoint {

struct MemoryPart {
  std::string name;  // "weights", "KV cache", "buffers"
  uint64_t bytes = 0;
  std::string lowered_by;  // the flag that makes it smaller, "--kv-cache-memory"; may be empty
};

// The sum; 2^64 - 1 when it does not fit.
uint64_t TotalBytes(std::span<const MemoryPart> parts);

// "weights 26.7 MiB + KV cache 1.0 GiB = 1.0 GiB"
std::string DescribeMemory(std::span<const MemoryPart> parts);

// Does nothing when the parts fit into `available_bytes`. Errors: kResource with every part, the
// sum, what is available, and the flags to lower, the largest part's first.
void CheckMemory(std::span<const MemoryPart> parts, uint64_t available_bytes);

}  // namespace wideload::checkpoint
