// Bodies of requests: refused or read, never more.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "serve/api_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload::serve;
  if (size == 0) return 0;
  constexpr Operation kOperations[] = {kCompletion, kChat,          kTokenize,
                                       kDetokenize, kApplyTemplate, kResponses};
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  ApiRequest request;
  ParseApiRequest(kOperations[data[0] % 6], body, request);
  return 0;
}
