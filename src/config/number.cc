#include "config/number.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "base/error.h"

namespace wideload::config {
namespace {

template <class T>
bool IsWithin(T value, const Limits& limits) {
  const auto number = static_cast<double>(value);
  return std::isfinite(number) &&
         (limits.min_excluded ? number > limits.min : number >= limits.min) &&
         (limits.max_excluded ? number < limits.max : number <= limits.max);
}

}  // namespace

std::string LimitsText(const Limits& limits) {
  const bool has_min = std::isfinite(limits.min);
  const bool has_max = std::isfinite(limits.max);
  if (has_min && has_max && !limits.min_excluded && !limits.max_excluded)
    return fmt::format("{} to {}", limits.min, limits.max);
  std::string text;
  if (has_min && limits.min_excluded)
    text = fmt::format("above {}", limits.min);
  else if (has_min)
    text = fmt::format("{}{}", limits.min, has_max ? "" : " or more");
  if (!has_max) return text;
  const std::string joint = !has_min ? "" : limits.min_excluded ? " and " : " to ";
  return text + joint + fmt::format("{} {}", limits.max_excluded ? "below" : "at most", limits.max);
}

template <class T>
std::string NumberKind(const Limits& limits) {
  const std::string text = LimitsText(limits);
  return fmt::format("{}{}{}", std::is_integral_v<T> ? "INT" : "FLOAT", text.empty() ? "" : ": ",
                     text);
}

template <class T>
std::string AllowedNumbers(const Limits& limits) {
  if constexpr (std::is_floating_point_v<T>) {
    const std::string text = LimitsText(limits);
    return text.empty() ? "a finite number" : text;
  } else {
    const auto end = [](double limit, bool is_excluded, int step, T of_type) {
      return std::isfinite(limit) ? static_cast<T>(static_cast<T>(limit) + (is_excluded ? step : 0))
                                  : of_type;
    };
    return fmt::format("{} to {}",
                       end(limits.min, limits.min_excluded, 1, std::numeric_limits<T>::min()),
                       end(limits.max, limits.max_excluded, -1, std::numeric_limits<T>::max()));
  }
}

template <class T>
T ParseNumber(std::string_view name, std::string_view text, const Limits& limits) {
  std::string_view digits = text;
  if (digits.size() > 1 && digits[0] == '+' && digits[1] != '-') digits.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || !IsWithin(value, limits))
    Throw(ErrorKind::kInvalid, "{} is {}; allowed: {}", name, text, AllowedNumbers<T>(limits));
  return value;
}

template std::string NumberKind<int32_t>(const Limits&);
template std::string NumberKind<int64_t>(const Limits&);
template std::string NumberKind<uint64_t>(const Limits&);
template std::string NumberKind<double>(const Limits&);
template std::string AllowedNumbers<int32_t>(const Limits&);
template std::string AllowedNumbers<int64_t>(const Limits&);
template std::string AllowedNumbers<uint64_t>(const Limits&);
template std::string AllowedNumbers<double>(const Limits&);
template int32_t ParseNumber(std::string_view, std::string_view, const Limits&);
template int64_t ParseNumber(std::string_view, std::string_view, const Limits&);
template uint64_t ParseNumber(std::string_view, std::string_view, const Limits&);
template double ParseNumber(std::string_view, std::string_view, const Limits&);

}  // namespace wideload::config
