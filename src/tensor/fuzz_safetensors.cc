// Any bytes as a safetensors file: refused, or every byte of every tensor can be read.
#include <cstdint>
#include <span>

#include "base/error.h"
#include "tensor/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;
  try {
    const SafetensorsFile file(std::as_bytes(std::span(data, size)), "fuzz.safetensors");
    unsigned sum = 0;
    for (const auto& [name, view] : file.tensors())
      for (int64_t i = 0; i < view.num_bytes(); ++i)
        sum += static_cast<const uint8_t*>(view.raw())[i];
    volatile unsigned sink = sum;
    static_cast<void>(sink);
  } catch (const Error&) {
    // a refusal is an answer
  }
  return 0;
}
