// Arbitrary bytes as a chat template, rendered with a short conversation.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "tokenizer/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file
  static const tokenizer::ChatInput input{
      .messages = {{"system", " Be brief. "}, {"user", "<|im_end|>"}, {"Assis\xFFtant", "\xE6"}},
      .add_generation_prompt = true,
      .bos_token = "<s>",
      .eos_token = "</s>"};
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    tokenizer::ChatTemplate(text, "fuzz").Render(input);
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
