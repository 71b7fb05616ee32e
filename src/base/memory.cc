#include "base/memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>

#include "base/error.h"

namespace wideload {
namespace {

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

uint64_t ReadNumber(const char* path) {
  std::ifstream in(path);
  uint64_t value = 0;
  return in >> value ? value : kNoLimit;  // "max" or no such file: no limit
}

uint64_t MemAvailable() {
  std::ifstream in("/proc/meminfo");
  std::string key;
  uint64_t kib = 0;
  for (std::string rest; in >> key >> kib; std::getline(in, rest))
    if (key == "MemAvailable:") return kib * 1024;
  return kNoLimit;
}

uint64_t CgroupLeft(const char* limit_path, const char* usage_path) {
  const uint64_t limit = ReadNumber(limit_path);
  const uint64_t usage = ReadNumber(usage_path);
  if (limit == kNoLimit || usage == kNoLimit) return kNoLimit;
  return limit > usage ? limit - usage : 0;
}

}  // namespace

int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

uint64_t AvailableMemoryBytes() {
  return std::min({MemAvailable(),
                   CgroupLeft("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
                   CgroupLeft("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                              "/sys/fs/cgroup/memory/memory.usage_in_bytes")});
}

void CheckStackLimit() {
  constexpr rlim_t kNeeded = rlim_t{1} << 20;
  rlimit limit{};
  if (::getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur < kNeeded)
    Throw(ErrorKind::kResource, "a stack may have {}; at least {} are needed (ulimit -s {})",
          FormatBytes(limit.rlim_cur), FormatBytes(kNeeded), kNeeded >> 10);
}

uint64_t SaturatingProduct(std::initializer_list<uint64_t> factors) {
  uint64_t product = 1;
  for (const uint64_t factor : factors)
    if (__builtin_mul_overflow(product, factor, &product))
      return std::count(factors.begin(), factors.end(), 0U) > 0 ? 0 : kNoLimit;
  return product;
}

uint64_t ParseBytes(std::string_view text, std::string_view what) {
  const std::string copy(text);
  char* end = nullptr;
  const double number = std::strtod(copy.c_str(), &end);
  std::string unit;
  for (const char* c = end; *c != '\0'; ++c)
    if (*c != ' ') unit.push_back(static_cast<char>(std::toupper(static_cast<unsigned char>(*c))));
  const std::string_view prefixes = "KMGT";
  double scale = 1;
  bool valid = end != copy.c_str() && std::isfinite(number) && number >= 0;
  if (!unit.empty() && unit != "B") {
    const size_t power = prefixes.find(unit[0]);
    const std::string rest = unit.substr(1);
    valid =
        valid && power != std::string_view::npos && (rest.empty() || rest == "B" || rest == "IB");
    if (valid) scale = std::pow(1024.0, static_cast<double>(power + 1));
  }
  if (!valid || number * scale > 1e18)
    Throw(ErrorKind::kInvalid, "{} is '{}'; allowed: a size in bytes such as 4096, 64M, 1.5G", what,
          text);
  return static_cast<uint64_t>(std::llround(number * scale));
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(units); ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, units[unit]);
}

}  // namespace wideload
