#include "formats/json_rows.h"

#include <cmath>

namespace wideload::formats {

Json JsonRow(const std::vector<double>& loads) {
  constexpr double kExact = 9007199254740992;  // 2^53
  Json row = Json::array();
  for (const double load : loads) {
    if (load == std::floor(load) && load < kExact)
      row.push_back(static_cast<int64_t>(load));
    else
      row.push_back(load);
  }
  return row;
}

}  // namespace wideload::formats
