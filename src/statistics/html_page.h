// What the HTML reports have in common: one self-contained page, light or dark as the reader's
// system is. Pure; thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace wideload::statistics {

// From the beginning of the document to below the heading `title`, which is escaped.
std::string HtmlHead(std::string_view title);
inline constexpr const char* kHtmlEnd = "</main>\n</body>\n</html>\n";

// A figure for reading: "no load" where it is not finite.
std::string HtmlFigure(double value, int digits = 3);
// One of a list of class "tiles". `what` and `value` are HTML.
std::string HtmlTile(const std::string& what, const std::string& value);

}  // namespace wideload::statistics
