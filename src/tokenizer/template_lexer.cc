#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "tokenizer/template_program.h"

namespace wideload::tokenizer {
namespace {

constexpr std::string_view kSpace = " \t\n\r\f\v";

bool IsNameStart(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool IsNamePart(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// CRLF and CR become LF, one final line break goes.
std::string UnixLines(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    result += text[i] == '\r' ? '\n' : text[i];
  }
  if (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

class TemplateLexer {
 public:
  TemplateLexer(std::string text, const std::string& source)
      : text_(std::move(text)), source_(source) {}

  std::vector<TemplateChunk> Lex() {
    while (position_ < text_.size()) {
      const size_t tag = NextTag();
      TakeText(tag);
      if (tag == std::string::npos) break;
      const char kind = text_[tag + 1];
      position_ = tag + 2;
      if (Peek() == '-' || Peek() == '+') ++position_;
      if (kind == '#')
        SkipComment();
      else
        TakeTag(kind);
    }
    return std::move(chunks_);
  }

 private:
  [[noreturn]] void Refuse(ErrorKind kind, std::string_view what) {
    Throw(kind, "{}: line {}: {}", source_, Line(), what);
  }

  // The line of `position_`, counted on from where it was asked for last.
  int Line() {
    const size_t end = std::min(position_, text_.size());
    for (; counted_ < end; ++counted_) line_ += text_[counted_] == '\n';
    return line_;
  }
  char Peek(size_t ahead = 0) const {
    return position_ + ahead < text_.size() ? text_[position_ + ahead] : '\0';
  }

  size_t NextTag() const {
    for (size_t i = position_; (i = text_.find('{', i)) != std::string::npos; ++i)
      if (i + 1 < text_.size() && std::string_view("{%#").find(text_[i + 1]) != std::string::npos)
        return i;
    return std::string::npos;
  }

  // The text up to `tag`, without the white space that the tag takes.
  void TakeText(size_t tag) {
    std::string_view text =
        std::string_view(text_).substr(position_, tag == std::string::npos ? tag : tag - position_);
    if (strip_next_) text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
    strip_next_ = false;
    if (tag != std::string::npos) {
      const char kind = text_[tag + 1];
      const char mark = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
      if (mark == '-')
        text = text.substr(0, text.find_last_not_of(kSpace) + 1);
      else if (kind != '{' && mark != '+')
        text = WithoutIndent(text);
    }
    if (!text.empty())
      chunks_.push_back({.kind = TemplateChunk::Kind::kText, .text = std::string(text)});
  }

  // lstrip_blocks: blanks between the begin of the line and the tag go.
  std::string_view WithoutIndent(std::string_view text) const {
    const size_t line_begin = text.rfind('\n') + 1;  // npos + 1 is 0
    const bool begins_line = line_begin > 0 || at_line_begin_;
    const bool is_blank = text.find_first_not_of(" \t\f\v", line_begin) == std::string_view::npos;
    return begins_line && is_blank ? text.substr(0, line_begin) : text;
  }

  void SkipComment() {
    const size_t end = text_.find("#}", position_);
    if (end == std::string::npos) Refuse(ErrorKind::kCorrupt, "a comment {# without #}");
    const char mark = end > position_ ? text_[end - 1] : '\0';
    position_ = end + 2;
    AfterTag('#', mark);
  }

  // trim_blocks: one line break after %} and #} goes.
  void AfterTag(char kind, char mark) {
    strip_next_ = mark == '-';
    at_line_begin_ = false;
    if (kind != '{' && mark != '-' && mark != '+' && Peek() == '\n') {
      ++position_;
      at_line_begin_ = true;
    }
  }

  void TakeTag(char kind) {
    const char close = kind == '{' ? '}' : '%';
    TemplateChunk chunk{.kind = kind == '{' ? TemplateChunk::Kind::kOutput
                                            : TemplateChunk::Kind::kBlock};
    while (true) {
      while (position_ < text_.size() && kSpace.find(Peek()) != std::string_view::npos) ++position_;
      if (position_ >= text_.size()) Refuse(ErrorKind::kCorrupt, "the template ends within a tag");
      const size_t mark = Peek() == '-' || Peek() == '+' ? 1 : 0;
      if (Peek(mark) == close && Peek(mark + 1) == '}') {
        chunk.tokens.push_back({.kind = TemplateToken::Kind::kEnd, .line = Line()});
        const char mark_character = mark ? Peek() : '\0';
        position_ += mark + 2;
        chunks_.push_back(std::move(chunk));
        return AfterTag(kind, mark_character);
      }
      chunk.tokens.push_back(NextToken());
    }
  }

  TemplateToken NextToken() {
    const int line = Line();
    const char c = Peek();
    if (c == '\'' || c == '"')
      return {.kind = TemplateToken::Kind::kString, .text = TakeString(), .line = line};
    size_t length = 0;
    if (IsNameStart(c)) {
      while (IsNamePart(Peek(length))) ++length;
      return {.kind = TemplateToken::Kind::kName, .text = Take(length), .line = line};
    }
    if (std::isdigit(static_cast<unsigned char>(c))) {
      while (IsNamePart(Peek(length))) ++length;
      return {.kind = TemplateToken::Kind::kInt, .text = Take(length), .line = line};
    }
    for (const std::string_view op : {"==", "!=", "<=", ">=", "//", "**"})
      if (std::string_view(text_).substr(position_, 2) == op)
        return {.kind = TemplateToken::Kind::kOperator, .text = Take(2), .line = line};
    return {.kind = TemplateToken::Kind::kOperator, .text = Take(1), .line = line};
  }

  std::string Take(size_t length) {
    position_ += length;
    return text_.substr(position_ - length, length);
  }

  std::string TakeString() {
    const char quote = Peek();
    ++position_;
    std::string result;
    while (Peek() != quote || position_ >= text_.size()) {
      if (position_ >= text_.size()) Refuse(ErrorKind::kCorrupt, "a string without closing quote");
      result += Peek() == '\\' ? TakeEscape() : Take(1)[0];
    }
    ++position_;
    return result;
  }

  char TakeEscape() {
    const char c = Peek(1);
    constexpr std::string_view kNames = "ntr\\'\"";
    constexpr std::string_view kValues = "\n\t\r\\'\"";
    const size_t index = kNames.find(c);
    if (c == '\0' || index == std::string_view::npos)
      Refuse(ErrorKind::kUnsupported,
             fmt::format("the escape \\{} is not supported", c == '\0' ? ' ' : c));
    position_ += 2;
    return kValues[index];
  }

  std::string text_;
  const std::string& source_;
  size_t position_ = 0;
  size_t counted_ = 0;
  int line_ = 1;
  bool strip_next_ = false;  // the tag before ended with -
  bool at_line_begin_ = true;
  std::vector<TemplateChunk> chunks_;
};

}  // namespace

std::vector<TemplateChunk> LexTemplate(std::string_view text, const std::string& source) {
  return TemplateLexer(UnixLines(text), source).Lex();
}

}  // namespace wideload::tokenizer
