#include "checkpoint/memory_plan.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/memory.h"

namespace wideload::checkpoint {
namespace {

std::string FlagsToLower(std::span<const MemoryPart> parts) {
  std::vector<const MemoryPart*> largest_first;
  for (const MemoryPart& part : parts)
    if (!part.lowered_by.empty() && part.bytes > 0) largest_first.push_back(&part);
  std::stable_sort(largest_first.begin(), largest_first.end(),
                   [](const MemoryPart* a, const MemoryPart* b) { return a->bytes > b->bytes; });
  std::vector<std::string> flags;
  for (const MemoryPart* part : largest_first)
    if (std::find(flags.begin(), flags.end(), part->lowered_by) == flags.end())
      flags.push_back(part->lowered_by);
  std::string text;
  for (const std::string& flag : flags) text += (text.empty() ? "" : ", ") + flag;
  return text;
}

}  // namespace

uint64_t TotalBytes(std::span<const MemoryPart> parts) {
  uint64_t total = 0;
  for (const MemoryPart& part : parts)
    if (__builtin_add_overflow(total, part.bytes, &total))
      return std::numeric_limits<uint64_t>::max();
  return total;
}

std::string DescribeMemory(std::span<const MemoryPart> parts) {
  std::string text;
  for (const MemoryPart& part : parts)
    text += fmt::format("{}{} {}", text.empty() ? "" : " + ", part.name, FormatBytes(part.bytes));
  return fmt::format("{} = {}", text, FormatBytes(TotalBytes(parts)));
}

void CheckMemory(std::span<const MemoryPart> parts, uint64_t available_bytes) {
  if (TotalBytes(parts) <= available_bytes) return;
  const std::string flags = FlagsToLower(parts);
  Throw(ErrorKind::kResource, "not enough memory: {}; this machine has {} available{}{}",
        DescribeMemory(parts), FormatBytes(available_bytes), flags.empty() ? "" : "; lower ",
        flags);
}

}  // namespace wideload::checkpoint
