// Single elements of a tensor of any number type. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "tensor/tensor_view.h"

namespace wideload::statistics {

// Element `index` of a dense tensor, which may lie unaligned. Errors: kInvalid prefixed by `where`
// for BOOL tensors.
double NumberAt(const TensorView& view, int64_t index, const std::string& where);

// The same for integers. Errors: kInvalid prefixed by `where` for tensors that hold no integers,
// and for values beyond int64.
int64_t IntegerAt(const TensorView& view, int64_t index, const std::string& where);

}  // namespace wideload::statistics
