// NumPy's files of arrays: .npy, and .npz, which is a zip archive of these. Object arrays, which
// hold pickled code, are refused. Pure but for files; thread-safe. Source: NumPy's description of
// the format (NEP 1).
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "formats/number_array.h"

namespace wideload::formats {

// Errors, with `source`: kCorrupt for bytes that are no .npy file, a header that cannot be read,
// fewer or more bytes than the shape says; kUnsupported for types other than numbers and booleans.
NumberArray ParseNpy(std::span<const std::byte> bytes, const std::string& source);
// The same of a file. Errors: also kNotFound and kIo.
NumberArray ReadNpy(const std::string& path);

// Name of the member without .npy -> array. Errors: as above, and those of ZipFile.
std::map<std::string, NumberArray> ParseNpz(std::span<const std::byte> bytes,
                                            const std::string& source);

// As numpy.save writes it: int64 when all values are integers, else float64.
std::string FormatNpy(const NumberArray& array);

}  // namespace wideload::formats
