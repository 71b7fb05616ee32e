// Conversations in a JSON document, rendered one by one.
#pragma once

#include <string>
#include <string_view>

#include "chat/chat_template.h"

namespace wideload::chat {

// `document` is a JSON list of objects with messages, tools, add_generation_prompt, extra (an
// object of further variables), now ("2025-03-09T14:05:07"); null means not given; other members
// are the user's own and not looked at. `variables` come before those of `extra`, `options.now` is
// for cases without now. Returns a JSON list of {"text": ...} or {"error": ...}, one for each case.
// Errors: kCorrupt and kInvalid with `source` when the document is no such list.
std::string RenderCases(const ChatTemplate& chat_template, const Variables& variables,
                        std::string_view document, const std::string& source,
                        const ChatOptions& options);

// "2025-03-09", "2025-03-09T14:05", "2025-03-09 14:05:07.250". Errors: kInvalid with what was
// found and what is allowed.
jinja::CivilTime ParseTime(const std::string& text);

}  // namespace wideload::chat
