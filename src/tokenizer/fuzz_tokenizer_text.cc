// Arbitrary bytes as text for the embedded model's tokenizer: decoding gives the normalised text
// back, and streaming gives what decoding at once gives.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload::tokenizer;
  static const Tokenizer tokenizer = [] {
    const char* folder = std::getenv("WIDELOAD_SOURCE_DIR");
    return Tokenizer::FromFile(std::string(folder ? folder : ".") + "/models/wideload-14m");
  }();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::vector<int32_t> ids = tokenizer.EncodePlain(text);
  const std::string decoded = tokenizer.Decode(ids);
  WIDELOAD_CHECK(decoded == Nfc(WithReplacements(text)), "decoded to {}", decoded);

  const std::vector<int32_t> marked_ids = tokenizer.Encode(text);
  StreamingDetokenizer stream(tokenizer);
  std::string streamed;
  for (const int32_t id : marked_ids) {
    const std::string piece = stream.Push(id);
    WIDELOAD_CHECK(IsValidUtf8(piece), "piece {}", piece);
    streamed += piece;
  }
  streamed += stream.Flush();
  WIDELOAD_CHECK(streamed == tokenizer.Decode(marked_ids), "streamed {}", streamed);

  // The bytes as ids: any order of tokens.
  std::vector<int32_t> any_ids;
  for (size_t i = 0; i + 1 < size; i += 2) any_ids.push_back((data[i] << 5 ^ data[i + 1]) & 8191);
  std::string any_streamed;
  for (const int32_t id : any_ids) any_streamed += stream.Push(id);
  any_streamed += stream.Flush();
  WIDELOAD_CHECK(any_streamed == tokenizer.Decode(any_ids), "streamed {}", any_streamed);
  return 0;
}
