// Arbitrary bytes as the input of apply-template, with a template that looks at all of it.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "chat/template_cases.h"

namespace {

constexpr char kTemplate[] =
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.content is string %}{{ m.content | trim }}"
    "{% else %}{% for p in m.content %}{{ p.type }}{{ p['text'] }}{% endfor %}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}"
    "{% endfor %}{{ m.reasoning_content }}{{ m }}{% endfor %}"
    "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{{ documents }}{{ x ~ y }}"
    "{{ strftime_now('%d %b %Y') }}{% if add_generation_prompt %}<|assistant|>{% endif %}";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file
  static const chat::ChatTemplate chat_template(kTemplate, "fuzz.jinja");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    chat::RenderCases(chat_template, {}, text, "fuzz.json", {});
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
