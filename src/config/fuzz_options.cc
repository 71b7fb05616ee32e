// Any text as the value of any option, also as a size: read or refused.
// What was read is written as a text that means the same.
#include <cstdint>
#include <string>

#include "base/error.h"
#include "base/memory.h"
#include "config/option_table.h"

namespace wideload::config {
namespace {

template <class Flags>
void Try(const OptionRow& row, const std::string& text) {
  Flags flags;
  try {
    SetOption(row, "--option", text, flags);
  } catch (const Error&) {
    return;
  }
  const std::string written = ValueText(row, flags);
  Flags again;
  const Member& member = row.member;
  if (std::holds_alternative<bool EngineFlags::*>(member) ||
      std::holds_alternative<bool SamplingFlags::*>(member))
    return;
  SetOption(row, "--option", written, again);
  WIDELOAD_CHECK(ValueText(row, again) == written, "{} is written as {}, then as {}", text, written,
                 ValueText(row, again));
}

}  // namespace
}  // namespace wideload::config

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;
  if (size == 0) return 0;
  const auto table = config::OptionTable();
  const config::OptionRow& row = table[data[0] % table.size()];
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (config::IsOptionOf<config::EngineFlags>(row))
    config::Try<config::EngineFlags>(row, text);
  else
    config::Try<config::SamplingFlags>(row, text);
  try {
    ParseBytes(text, "--size");
  } catch (const Error&) {
    // a refusal is an answer
  }
  return 0;
}
