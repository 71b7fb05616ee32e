// Decompression of raw DEFLATE data (RFC 1951), as members of zip archives hold it. Pure;
// thread-safe.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace wideload::formats {

// Exactly `size` bytes. Errors: kCorrupt prefixed by `where`: codes that are none, distances before
// the beginning, another length.
std::string Inflate(std::span<const std::byte> data, size_t size, const std::string& where);

}  // namespace wideload::formats
