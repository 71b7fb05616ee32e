// Files that hold arrays and nothing that says what they mean: .npy, .npz and .safetensors.
// Thread-safe.
#pragma once

#include <string>

#include "formats/number_array.h"

namespace wideload::formats {

// FILE.npy, FILE.npz:ARRAY, FILE.safetensors:TENSOR; the latter two without a name where the file
// holds one array.
bool IsArrayFile(const std::string& path);
// Path without ":ARRAY". Only for what IsArrayFile knows.
std::string FileOfArrayPath(const std::string& path);

// Errors: those of the formats; kNotFound naming the arrays there are; kInvalid when the file holds
// several and none is named.
NumberArray ReadArrayFile(const std::string& path);

}  // namespace wideload::formats
