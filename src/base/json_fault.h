// What is wrong with a text that is no JSON, in words for the person who wrote it. Part of the
// parsers on nlohmann-json; include only in .cc files.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace wideload {

// Throws kCorrupt naming `source`, line, column, what was found there and what is allowed: for the
// parser's event parse_error, which gives the number of bytes it has read and its own exception.
// `text` is the whole text.
[[noreturn]] void RefuseBrokenJson(std::string_view text, const std::string& source,
                                   size_t bytes_read, const nlohmann::detail::exception& exception);

}  // namespace wideload
