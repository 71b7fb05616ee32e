#include "model/load_faults.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "checkpoint/weight_sums.h"

namespace wideload::model {
namespace {

std::string KeyOf(std::string_view tensor, bool is_missing) {
  return fmt::format("{} {}", is_missing, checkpoint::NamePattern(tensor));
}

}  // namespace

bool LoadFaults::Count(const std::string& key, std::string_view tensor) {
  const auto found = index_of_.find(key);
  if (found == index_of_.end()) return false;
  Kind& kind = kinds_[found->second];
  if (kind.last != tensor) ++kind.count;
  kind.last = tensor;
  return true;
}

void LoadFaults::Add(std::string_view tensor, bool is_missing, const Error& error) {
  const std::string key = KeyOf(tensor, is_missing);
  if (Count(key, tensor)) return;
  if (kinds_.empty()) kind_ = error.kind();
  index_of_[key] = kinds_.size();
  kinds_.push_back({.message = error.what(), .last = std::string(tensor), .count = 1});
}

bool LoadFaults::AddMissingAlike(std::string_view tensor) {
  return Count(KeyOf(tensor, true), tensor);
}

std::vector<std::string> LoadFaults::Lines(size_t max_lines) const {
  std::vector<std::string> lines;
  for (size_t i = 0; i < std::min(max_lines, kinds_.size()); ++i) {
    const Kind& kind = kinds_[i];
    lines.push_back(kind.message);
    if (kind.count > 1) lines.back() += fmt::format(" (and {} more like it)", kind.count - 1);
  }
  if (kinds_.size() > max_lines)
    lines.push_back(fmt::format("{} more kinds of tensors are missing or of a wrong shape or type",
                                kinds_.size() - max_lines));
  return lines;
}

void LoadFaults::ThrowIfAny() const {
  if (!empty()) throw Error(kind_, fmt::format("{}", fmt::join(Lines(), "; ")));
}

}  // namespace wideload::model
