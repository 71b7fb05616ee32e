// What memory this machine can give, and sizes as people write them. Pure reads of /proc and cgroup
// files.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace wideload {

// Bytes that can be allocated without swapping: MemAvailable, lowered to what a cgroup (v1 or v2)
// limit leaves.
uint64_t AvailableMemoryBytes();

// Bytes of memory that this process has in use, shared ones included; 0 where /proc is not there.
int64_t ResidentBytes();

// Errors: kResource when this process's stacks may not be as large as the program's functions need.
void CheckStackLimit();

// Their product, or the largest value when no 64 bits hold it: for sums that are compared with what
// there is.
uint64_t SaturatingProduct(std::initializer_list<uint64_t> factors);

// "512", "64K", "1.5G", "2GiB", "300MB" (K, M, G, T are powers of 1024 in every spelling).
// Errors: kInvalid, naming `what` and the text.
uint64_t ParseBytes(std::string_view text, std::string_view what);

// "27.4 MiB"
std::string FormatBytes(uint64_t bytes);

}  // namespace wideload
