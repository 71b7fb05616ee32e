// The tokens of a template, white space controlled as Jinja does with trim_blocks and
// lstrip_blocks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace wideload::jinja {

// One token and where it stands.
struct Token {
  // Text outside of tags, and the tokens inside.
  enum class Kind {
    kData,
    kOutputBegin,
    kOutputEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text{};
  int line = 1;
};

// The last token is kEnd. Errors: kCorrupt and kUnsupported, with `source` and the line.
// Source: jinja2 3.1, lexer.py.
std::vector<Token> Lex(std::string_view text, const std::string& source);

}  // namespace wideload::jinja
