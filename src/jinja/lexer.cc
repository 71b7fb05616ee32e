#include "jinja/lexer.h"

#include <algorithm>

#include "base/error.h"
#include "jinja/python_text.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {
namespace {

using Kind = Token::Kind;

bool IsDecimalDigit(char c) { return c >= '0' && c <= '9'; }
char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool IsHex(char c) { return IsDecimalDigit(c) || (Lower(c) >= 'a' && Lower(c) <= 'f'); }

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

class Lexer {
 public:
  Lexer(std::string text, const std::string& source) : text_(std::move(text)), source_(source) {}

  std::vector<Token> Run() {
    while (position_ < text_.size()) {
      const size_t tag = NextTag();
      TakeData(tag);
      if (tag >= text_.size()) break;
      line_start_ = false;
      if (TakeRaw()) continue;
      const char kind = text_[position_ + 1];
      position_ += 2;
      if (Peek() == '-' || Peek() == '+') ++position_;
      if (kind == '#')
        SkipComment();
      else
        TakeTag(kind == '{');
    }
    Push(Kind::kEnd);
    return std::move(tokens_);
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
  void Push(Kind kind, std::string text = "") {
    tokens_.push_back({.kind = kind, .text = std::move(text), .line = Line()});
  }
  char At(size_t position) const { return position < text_.size() ? text_[position] : '\0'; }
  char Peek(size_t ahead = 0) const { return At(position_ + ahead); }
  bool StartsAt(size_t position, std::string_view what) const {
    return text_.compare(position, what.size(), what) == 0;
  }

  size_t NextTag() const {
    for (size_t i = position_; (i = text_.find('{', i)) != std::string::npos; ++i)
      if (At(i + 1) == '{' || At(i + 1) == '%' || At(i + 1) == '#') return i;
    return text_.size();
  }

  // The text up to `tag`, without the white space that the tag takes.
  void TakeData(size_t tag) {
    std::string_view text = std::string_view(text_).substr(position_, tag - position_);
    if (tag < text_.size()) text = text.substr(0, KeptBefore(text, tag));
    if (!text.empty()) Push(Kind::kData, std::string(text));
    position_ = tag;
  }

  // How much of `text` stays before the tag at `tag`.
  size_t KeptBefore(std::string_view text, size_t tag) const {
    const char sign = At(tag + 2);
    if (sign == '-') return text.size() - NumSpaceBytesAtEnd(text);
    if (sign == '+' || At(tag + 1) == '{') return text.size();
    const size_t line_begin = text.rfind('\n') + 1;  // npos + 1 is 0
    const std::string_view line = text.substr(line_begin);
    const bool is_blank = NumSpaceBytesAtEnd(line) == line.size();
    return (line_begin > 0 || line_start_) && is_blank ? line_begin : text.size();
  }

  size_t AfterSpace(size_t position) const {
    return position + NumSpaceBytesAtBegin(std::string_view(text_).substr(position));
  }

  // The position after "[-+]? NAME" that follows {%, or 0.
  size_t AfterRawName(size_t block, std::string_view name) const {
    size_t position = block + 2;
    if (At(position) == '-' || At(position) == '+') ++position;
    position = AfterSpace(position);
    return StartsAt(position, name) ? AfterSpace(position + name.size()) : 0;
  }

  // {% raw %} to {% endraw %}, if that is what stands here.
  bool TakeRaw() {
    if (At(position_ + 1) != '%') return false;
    const size_t name_end = AfterRawName(position_, "raw");
    const bool strips = name_end > 0 && StartsAt(name_end, "-%}");
    if (name_end == 0 || !(strips || StartsAt(name_end, "%}"))) return false;
    position_ = strips ? AfterSpace(name_end + 3) : name_end + 2;
    line_start_ = At(position_ - 1) == '\n';
    for (size_t i = position_; (i = text_.find("{%", i)) != std::string::npos; ++i) {
      const size_t end = AfterRawName(i, "endraw");
      if (end == 0 || EndOfBlock(end) == 0) continue;
      TakeData(i);
      position_ = EndOfBlock(end);
      line_start_ = At(position_ - 1) == '\n';
      return true;
    }
    Refuse(ErrorKind::kCorrupt, "{% raw %} without {% endraw %}");
  }

  // The position after the end of a tag of {% or {# that ends at `position`, or 0: trim_blocks
  // takes one line break, - all white space.
  size_t EndOfBlock(size_t position, char mark = '%') const {
    const char end[] = {mark, '}', '\0'};
    if (At(position) == '-' && StartsAt(position + 1, end)) return AfterSpace(position + 3);
    if (At(position) == '+' && StartsAt(position + 1, end)) return position + 3;
    if (!StartsAt(position, end)) return 0;
    return At(position + 2) == '\n' ? position + 3 : position + 2;
  }

  void SkipComment() {
    const size_t end = text_.find("#}", position_);
    if (end == std::string::npos) Refuse(ErrorKind::kCorrupt, "a comment {# without #}");
    const bool is_signed = end > position_ && (At(end - 1) == '-' || At(end - 1) == '+');
    position_ = EndOfBlock(is_signed ? end - 1 : end, '#');
    line_start_ = At(position_ - 1) == '\n';
  }

  // The position after the end of the tag that stands here, or 0.
  size_t EndOfTag(bool is_output) const {
    if (!is_output) return EndOfBlock(position_);
    if (StartsAt(position_, "-}}")) return AfterSpace(position_ + 3);
    return StartsAt(position_, "}}") ? position_ + 2 : 0;
  }

  void TakeTag(bool is_output) {
    Push(is_output ? Kind::kOutputBegin : Kind::kBlockBegin);
    open_.clear();
    while (true) {
      const size_t end = open_.empty() ? EndOfTag(is_output) : 0;
      if (end > 0) {
        Push(is_output ? Kind::kOutputEnd : Kind::kBlockEnd);
        position_ = end;
        line_start_ = At(end - 1) == '\n';
        return;
      }
      const size_t next = AfterSpace(position_);
      if (next > position_) {
        position_ = next;
        continue;
      }
      if (position_ >= text_.size()) Refuse(ErrorKind::kCorrupt, "the template ends within a tag");
      TakeToken();
    }
  }

  void TakeToken() {
    const std::string_view rest = std::string_view(text_).substr(position_);
    if (const size_t length = FloatLength(); length > 0) return Take(Kind::kFloat, length);
    if (const size_t length = IntegerLength(); length > 0) return Take(Kind::kInteger, length);
    size_t length = 0;
    while (length < rest.size()) {
      const tokenizer::Utf8Unit unit = tokenizer::Utf8At(rest, length);
      if (!tokenizer::IsWordCharacter(unit.code_point)) break;
      length += unit.length;
    }
    if (length > 0) return Take(Kind::kName, length);
    if (Peek() == '\'' || Peek() == '"') return TakeString();
    TakeOperator();
  }

  void Take(Kind kind, size_t length) {
    Push(kind, text_.substr(position_, length));
    position_ += length;
  }

  // The end of digits, in groups joined by _, or `position` when there are none.
  size_t AfterDigits(size_t position) const {
    size_t end = position;
    while (IsDecimalDigit(At(end)) ||
           (end > position && At(end) == '_' && IsDecimalDigit(At(end + 1))))
      ++end;
    return end;
  }

  size_t FloatLength() const {
    const size_t whole = AfterDigits(position_);
    if (whole == position_ || (position_ > 0 && text_[position_ - 1] == '.')) return 0;
    const size_t fraction = At(whole) == '.' ? AfterDigits(whole + 1) : whole + 1;
    const bool has_fraction = fraction > whole + 1;
    const size_t mantissa = has_fraction ? fraction : whole;
    if (Lower(At(mantissa)) == 'e') {
      const size_t digits = mantissa + (At(mantissa + 1) == '+' || At(mantissa + 1) == '-' ? 2 : 1);
      const size_t end = AfterDigits(digits);
      if (end > digits) return end - position_;
    }
    return has_fraction ? fraction - position_ : 0;
  }

  size_t IntegerLength() const {
    if (!IsDecimalDigit(Peek())) return 0;
    const char base = Peek() == '0' ? Lower(Peek(1)) : '\0';
    const auto is_digit = [base](char c) {
      if (base == 'b') return c == '0' || c == '1';
      return base == 'o' ? c >= '0' && c <= '7' : IsHex(c);
    };
    if (base == 'b' || base == 'o' || base == 'x') {
      size_t length = 2;
      while (is_digit(Peek(length)) || (Peek(length) == '_' && is_digit(Peek(length + 1))))
        ++length;
      if (length > 2) return length;
    }
    if (Peek() != '0') return AfterDigits(position_) - position_;
    size_t length = 1;
    while (Peek(length) == '0' || (Peek(length) == '_' && Peek(length + 1) == '0')) ++length;
    return length;
  }

  void TakeOperator() {
    for (const std::string_view op : {"==", "!=", "<=", ">=", "//", "**"})
      if (StartsAt(position_, op)) return Take(Kind::kOperator, 2);
    const char c = Peek();
    if (std::string_view("+-/*%~[](){}<>=.:|,;").find(c) == std::string_view::npos)
      Refuse(ErrorKind::kUnsupported, fmt::format("{:?} is not supported here", Shown()));
    constexpr std::string_view kOpen = "([{";
    constexpr std::string_view kClose = ")]}";
    if (const size_t i = kOpen.find(c); i != std::string_view::npos) open_ += kClose[i];
    if (kClose.find(c) != std::string_view::npos) {
      if (open_.empty() || open_.back() != c)
        Refuse(ErrorKind::kCorrupt, fmt::format("\"{}\" closes nothing that is open", c));
      open_.pop_back();
    }
    Take(Kind::kOperator, 1);
  }

  std::string Shown() const {
    const size_t length = tokenizer::Utf8At(text_, position_).length;
    return text_.substr(position_, length);
  }

  void TakeString() {
    const char quote = Peek();
    Push(Kind::kString);
    std::string result;
    ++position_;
    while (Peek() != quote || position_ >= text_.size()) {
      if (position_ >= text_.size()) Refuse(ErrorKind::kCorrupt, "a string without closing quote");
      if (Peek() == '\\')
        TakeEscape(result);
      else
        result += text_[position_++];
    }
    ++position_;
    tokens_.back().text = std::move(result);
  }

  // Python's escapes; those that it does not know stay as they are.
  void TakeEscape(std::string& result) {
    const char c = Peek(1);
    constexpr std::string_view kNames = "ntrabfv\\'\"";
    constexpr std::string_view kValues = "\n\t\r\a\b\f\v\\'\"";
    if (position_ + 1 >= text_.size())
      Refuse(ErrorKind::kCorrupt, "a string without closing quote");
    if (c == 'N') Refuse(ErrorKind::kUnsupported, "the escape \\N is not supported");
    if (c == 'x') return TakeCode(2, result);
    if (c == 'u') return TakeCode(4, result);
    if (c == 'U') return TakeCode(8, result);
    if (c >= '0' && c <= '7') return TakeOctal(result);
    const size_t index = kNames.find(c);
    position_ += 2;
    if (index != std::string_view::npos)
      result += kValues[index];
    else if (c != '\n')
      (result += '\\') += c;
  }

  void TakeCode(size_t num_digits, std::string& result) {
    uint32_t code = 0;
    for (size_t i = 0; i < num_digits; ++i) {
      const char digit = Peek(2 + i);
      if (!IsHex(digit)) Refuse(ErrorKind::kCorrupt, "an escape with too few hexadecimal digits");
      code = code * 16 +
             static_cast<uint32_t>(IsDecimalDigit(digit) ? digit - '0' : Lower(digit) - 'a' + 10);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
      Refuse(ErrorKind::kUnsupported,
             fmt::format("the escape for U+{:04X} is not supported", code));
    tokenizer::AppendUtf8(code, result);
    position_ += 2 + num_digits;
  }

  void TakeOctal(std::string& result) {
    uint32_t code = 0;
    size_t length = 1;
    for (; length <= 3 && Peek(length) >= '0' && Peek(length) <= '7'; ++length)
      code = code * 8 + static_cast<uint32_t>(Peek(length) - '0');
    tokenizer::AppendUtf8(code, result);
    position_ += length;
  }

  std::string text_;
  const std::string& source_;
  size_t position_ = 0;
  size_t counted_ = 0;
  int line_ = 1;
  bool line_start_ = true;  // the tag before ended with a line break
  std::string open_;        // the brackets that the tag has yet to close
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Lex(std::string_view text, const std::string& source) {
  if (!tokenizer::IsValidUtf8(text))
    Throw(ErrorKind::kCorrupt, "{}: the template is not valid UTF-8", source);
  return Lexer(UnixLines(text), source).Run();
}

}  // namespace wideload::jinja
