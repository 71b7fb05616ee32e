// Answers of a server, in pieces: the first byte says how long these are.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "loadclient/completion_chunk.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t piece = data[0] % 64 + 1U;
  loadclient::ErrorName(data[0], text);
  loadclient::EventReader reader;
  for (size_t at = 0; at < text.size(); at += piece)
    reader.Feed(text.substr(at, piece), [](std::string_view event) {
      try {
        loadclient::ParseChunk(event);
      } catch (const Error&) {  // refused
      }
    });
  return 0;
}
