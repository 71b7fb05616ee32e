// Arbitrary bytes as a chat template, and after a byte 0 as the members of its conversation.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "chat/chat_template.h"
#include "jinja/json_value.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(all.find('\0'), all.size());
  // Small: what is bounded must end soon enough to be run a million times.
  const chat::ChatOptions options{
      .limits = {.render = {.max_steps = 20'000, .max_work_bytes = 1 << 20, .max_level = 400}}};
  try {
    chat::ChatInput input{
        .messages = {chat::Message("system", " Be brief. "), chat::Message("user", "<|im_end|>"),
                     chat::Message("Assis\xFFtant", "\xE6")},
        .add_generation_prompt = true,
        .variables = {{"eos_token", jinja::Value::Text("</s>", false)}}};
    const chat::ChatTemplate chat_template(all.substr(0, end), "fuzz");
    if (end < all.size())
      chat::AddVariables(jinja::ParseJsonValue(all.substr(end + 1), "fuzz"), "fuzz", input);
    chat_template.Render(input, options);
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
