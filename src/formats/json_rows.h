// Loads as rows of JSON numbers. Include only in .cc files: the header of JSON is heavy.
#pragma once

#include <vector>

#include "base/json.h"

namespace wideload::formats {

// Counts that a double holds exactly are integers in the text.
Json JsonRow(const std::vector<double>& loads);

}  // namespace wideload::formats
