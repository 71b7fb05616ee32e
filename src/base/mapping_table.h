// The mapped files of this process, so that the signal of a page that cannot be read names its
// file. Thread-safe.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace wideload {

// Returns the entry, for RemoveMapping, or -1 when the table is full: then the signal names no
// file.
int AddMapping(std::span<const std::byte> bytes, const std::string& path);
// Takes an entry of AddMapping out again.
void RemoveMapping(int entry);

// From now on, a read of a mapped file that ends the process, because the file was cut short or its
// disk fails, says so on standard error, with the file's path and the byte; exit code 1. For
// programs: a library leaves signals to its host.
void NameUnreadableMappings();

}  // namespace wideload
