// What stands between the marks of a tool call, form by form. Pure.
#pragma once

#include <optional>
#include <string_view>

#include "serve/tool_calls.h"

namespace wideload::serve {

// The call that `body` is; none when it is not one.
std::optional<ToolCall> ParseToolCall(ToolForm form, std::string_view body,
                                      const TextParameters& text_parameters);

// The call of a function with these arguments; none when they are no JSON object or there is no
// name.
std::optional<ToolCall> MakeToolCall(std::string_view name, std::string_view arguments,
                                     std::string_view id = {});

// The object with which the text begins, by its braces; "" when it begins with none that is closed.
std::string_view FirstJsonObject(std::string_view text);

}  // namespace wideload::serve
