// Filters of strings and numbers. Source: jinja2 3.1, filters.py.
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "jinja/filters.h"
#include "jinja/json_text.h"
#include "jinja/percent_format.h"
#include "jinja/python_text.h"
#include "jinja/runtime.h"
#include "jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {
namespace {

using Bound = const BoundArguments&;

// The text of a number as int() and float() take it: without white space and with _ between digits
// removed. Nothing where _ stands elsewhere.
std::optional<std::string> NumberText(const MarkedText& value) {
  std::string_view text = value.text();
  text.remove_prefix(NumSpaceBytesAtBegin(text));
  text.remove_suffix(NumSpaceBytesAtEnd(text));
  std::string result;
  const auto is_digit = [&](size_t i) {
    return i < text.size() && text[i] >= '0' && text[i] <= '9';
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_')
      result += text[i];
    else if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1))
      return std::nullopt;
  }
  return result;
}

std::optional<double> ParseFloat(Runtime& runtime, const MarkedText& value) {
  runtime.Work(value.size());
  std::optional<std::string> text = NumberText(value);
  if (!text || text->empty()) return std::nullopt;
  const bool is_negative = (*text)[0] == '-';
  std::string digits = is_negative || (*text)[0] == '+' ? text->substr(1) : *text;
  for (char& c : digits) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  const double sign = is_negative ? -1.0 : 1.0;
  if (digits == "inf" || digits == "infinity") return sign * HUGE_VAL;
  if (digits == "nan") return std::nan("");
  if (digits.empty() || digits.find_first_not_of("0123456789.e+-") != std::string::npos)
    return std::nullopt;
  if (digits[0] == '+' || digits[0] == '-') return std::nullopt;
  char* end = nullptr;
  const double number = std::strtod(digits.c_str(), &end);
  if (end != digits.c_str() + digits.size()) return std::nullopt;
  return sign * number;
}

// int(value, base) of a string; nothing when Python would raise ValueError.
std::optional<Value> ParseInteger(Runtime& runtime, const MarkedText& value, int64_t base) {
  runtime.Work(value.size());
  const std::optional<std::string> text = NumberText(value);
  if (!text || text->empty()) return std::nullopt;
  const bool is_negative = (*text)[0] == '-';
  std::string digits = is_negative || (*text)[0] == '+' ? text->substr(1) : *text;
  const char letter =
      digits.size() > 2 && digits[0] == '0' ? static_cast<char>(digits[1] | 0x20) : '\0';
  const int64_t named = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
  if (base == 0 && named == 0 && digits.size() > 1 && digits[0] == '0' &&
      digits.find_first_not_of('0') != std::string::npos)
    return std::nullopt;
  if (named > 0 && (base == named || base == 0)) {
    digits = digits.substr(2);
    base = named;
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) return std::nullopt;
  digits.insert(0, is_negative ? "-" : "");
  int64_t number = 0;
  const auto end =
      std::from_chars(digits.data(), digits.data() + digits.size(), number, static_cast<int>(base));
  if (end.ptr != digits.data() + digits.size() || end.ec == std::errc::invalid_argument)
    return std::nullopt;
  if (end.ec != std::errc()) runtime.Unsupported("an integer beyond 64 bits");
  return Value{number};
}

std::optional<Value> Truncated(Runtime& runtime, double number) {
  if (!std::isfinite(number)) return std::nullopt;
  if (std::abs(number) >= 9.2e18) runtime.Unsupported("an integer beyond 64 bits");
  return Value{static_cast<int64_t>(number)};
}

Value Int(Runtime& runtime, Bound a) {
  const Value& value = *a[0];
  const Value fallback = a[1].value_or(Value{int64_t{0}});
  int64_t integer = 0;
  if (AsInteger(value, &integer)) return {integer};
  if (value.Big()) return value;
  if (value.IsUndefined()) runtime.Refuse("int of " + KindOf(value));
  if (const MarkedText* text = value.Str()) {
    const int64_t base = a[2] ? runtime.Integer(*a[2], "base") : 10;
    if (const auto number = ParseInteger(runtime, *text, base)) return *number;
    const auto real = ParseFloat(runtime, *text);
    return real ? Truncated(runtime, *real).value_or(fallback) : fallback;
  }
  const double* number = value.Float();
  if (number && std::isinf(*number)) runtime.Refuse("int of an infinite float");
  return number ? Truncated(runtime, *number).value_or(fallback) : fallback;
}

Value Float(Runtime& runtime, Bound a) {
  const Value& value = *a[0];
  double number = 0;
  if (AsDouble(value, &number)) return {number};
  if (value.IsUndefined()) runtime.Refuse("float of " + KindOf(value));
  if (value.Big()) return {std::strtod(value.Big()->digits.c_str(), nullptr)};
  if (const MarkedText* text = value.Str())
    if (const auto parsed = ParseFloat(runtime, *text)) return {*parsed};
  return a[1].value_or(Value{0.0});
}

Value Abs(Runtime& runtime, Bound a) {
  if (const double* number = a[0]->Float()) return {std::abs(*number)};
  const int64_t number = runtime.Integer(*a[0], "what abs is taken of");
  return number < 0 ? runtime.Negate({number}) : Value{number};
}

Value Round(Runtime& runtime, Bound a) {
  const int64_t precision = a[1] ? runtime.Integer(*a[1], "precision") : 0;
  const std::string method =
      a[2] ? runtime.Characters(*a[2], "method").text() : std::string("common");
  if (method != "common" && method != "ceil" && method != "floor")
    runtime.Refuse("method of round; it must be common, ceil or floor");
  if (precision < -300 || precision > 300) runtime.Unsupported("a precision beyond 300");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double number = runtime.Number(*a[0], "what is rounded");
  if (method == "common") {
    int64_t integer = 0;
    if (AsInteger(*a[0], &integer) && precision >= 0) return {integer};
    if (a[0]->Int()) runtime.Unsupported("rounding an integer to tens");
    if (!std::isfinite(number) || precision > 22) return {number};
    if (precision < 0)
      return {std::nearbyint(number * std::pow(10.0, static_cast<double>(precision))) / scale};
    // The nearest decimal, as Python rounds: from the exact value.
    const std::string text = fmt::format("{:.{}f}", number, precision);
    return {std::strtod(text.c_str(), nullptr)};
  }
  const double scaled = number * scale;
  const double whole = method == "ceil" ? std::ceil(scaled) : std::floor(scaled);
  return {whole / scale + 0.0};  // never -0.0: Python goes by way of an integer
}

Value Title(Runtime& runtime, Bound a) {
  const Value text = runtime.Str(*a[0]);
  const MarkedText& whole = *text.Str();
  runtime.Work(2 * whole.footprint());
  MarkedText result;
  bool begins = true;
  for (size_t i = 0; i < whole.size();) {
    const tokenizer::Utf8Unit unit = tokenizer::Utf8At(whole.text(), i);
    const uint32_t c = unit.code_point;
    const bool separates = IsSpace(c) || (c < 0x80 && c != 0 &&
                                          std::string_view("-({[<").find(static_cast<char>(c)) !=
                                              std::string_view::npos);
    std::string converted;
    if (begins)
      AppendUpper(c, converted);
    else
      AppendLower(c, converted);
    result.Append(converted, whole.IsPlain(i));
    begins = separates;
    i += unit.length;
  }
  return Value::Text(std::move(result));
}

Value Indent(Runtime& runtime, Bound a) {
  MarkedText indention;
  if (a[1] && a[1]->Str()) {
    indention = *a[1]->Str();
  } else {
    const int64_t width = a[1] ? runtime.Integer(*a[1], "width") : 4;
    runtime.CheckRoom(static_cast<size_t>(std::max<int64_t>(width, 0)));
    indention =
        MarkedText(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '), false);
  }
  const MarkedText& text = runtime.Characters(*a[0], "what is indented");
  runtime.Work(text.footprint());
  MarkedText whole = text;
  whole.Append("\n", false);
  const std::vector<Value> lines = Lines(runtime, whole, false);
  MarkedText result;
  for (size_t i = 0; i < lines.size(); ++i) {
    const MarkedText& line = *lines[i].Str();
    if (i > 0) result.Append("\n", false);
    if (i == 0 ? IsTrue(a[2]) : IsTrue(a[3]) || line.size() > 0) {
      runtime.Work(indention.footprint());
      result.Append(indention);
    }
    runtime.Work(line.footprint());
    result.Append(line);
  }
  return Value::Text(std::move(result));
}

Value Truncate(Runtime& runtime, Bound a) {
  const int64_t length = a[1] ? runtime.Integer(*a[1], "length") : 255;
  const MarkedText end = a[3] ? runtime.Characters(*a[3], "end") : MarkedText("...", false);
  const int64_t leeway = a[4] && !a[4]->IsNone() ? runtime.Integer(*a[4], "leeway") : 5;
  const auto end_length = static_cast<int64_t>(NumCodePoints(end.text()));
  if (length < end_length || leeway < 0) runtime.Refuse("a length too short for its end");
  const std::optional<int64_t> size = runtime.Length(*a[0]);
  if (size && *size - leeway <= length) return *a[0];
  const MarkedText& text = runtime.Characters(*a[0], "what is truncated");
  size_t kept = ByteOfCodePoint(text.text(), static_cast<size_t>(length - end_length));
  if (!IsTrue(a[2]) && kept > 0) {
    const size_t space = text.text().rfind(' ', kept - 1);
    if (space != std::string::npos) kept = space;
  }
  MarkedText result = text.Slice(0, kept);
  result.Append(end);
  return runtime.Text(std::move(result));
}

Value WordCount(Runtime& runtime, Bound a) {
  const Value text = runtime.Str(*a[0]);
  const std::string& all = text.Str()->text();
  runtime.Work(all.size());
  int64_t count = 0;
  bool is_inside = false;
  for (size_t i = 0; i < all.size();) {
    const tokenizer::Utf8Unit unit = tokenizer::Utf8At(all, i);
    const uint32_t c = unit.code_point;
    const bool is_word = IsAlpha(c) || IsNumeric(c) || c == '_';  // \w of Python's re
    if (is_word && !is_inside) ++count;
    is_inside = is_word;
    i += unit.length;
  }
  return {count};
}

std::optional<MarkedText> IndentOf(Runtime& runtime, const std::optional<Value>& value) {
  if (!value || value->IsNone()) return std::nullopt;
  if (const MarkedText* text = value->Str()) return *text;
  const auto width = static_cast<size_t>(std::max<int64_t>(runtime.Integer(*value, "indent"), 0));
  runtime.CheckRoom(width);
  return MarkedText(std::string(width, ' '), false);
}

Value ToJsonFilter(Runtime& runtime, Bound a) {
  JsonStyle style{
      .ensures_ascii = IsTrue(a[1]), .sorts_keys = IsTrue(a[4]), .indent = IndentOf(runtime, a[2])};
  if (a[3] && !a[3]->IsNone()) {
    const std::vector<Value> separators = runtime.Items(*a[3]);
    if (separators.size() != 2) runtime.Refuse("separators; there must be two");
    style.item_separator = runtime.Characters(separators[0], "a separator");
    style.key_separator = runtime.Characters(separators[1], "a separator");
  }
  return ToJson(runtime, *a[0], style);
}

Value Format(Runtime& runtime, const Arguments& arguments) {
  if (arguments.positional.empty()) runtime.Refuse("format needs a value");
  const Value format = runtime.Str(arguments.positional[0]);
  if (arguments.positional.size() > 1 && !arguments.named.empty())
    runtime.Refuse("format takes values by place or by name, not both");
  if (arguments.named.empty()) {
    std::vector<Value> values(arguments.positional.begin() + 1, arguments.positional.end());
    const Value tuple = runtime.List(std::move(values), Sequence::Kind::kTuple);
    return Value::Text(PercentFormat(runtime, *format.Str(), tuple));
  }
  jinja::Dict named;
  for (const auto& [name, value] : arguments.named)
    runtime.SetKey(named, Value::Text(name, false), value);
  return Value::Text(PercentFormat(runtime, *format.Str(), runtime.Mapping(std::move(named))));
}

Value Replace(Runtime& runtime, Bound a) {
  const Value from = runtime.Str(*a[1]);
  const Value to = runtime.Str(*a[2]);
  const int64_t count = a[3] && !a[3]->IsNone() ? runtime.Integer(*a[3], "count") : -1;
  return Replaced(runtime, runtime.Str(*a[0]), *from.Str(), *to.Str(), count);
}

}  // namespace

std::span<const Builtin> TextFilters() {
  static const std::vector<Builtin> kFilters = {
      {"abs", {"value"}, 1, Abs},
      {"capitalize",
       {"value"},
       1,
       [](Runtime& r, Bound a) { return Capitalized(r, r.Str(*a[0])); }},
      {"center",
       {"value", "width"},
       1,
       [](Runtime& r, Bound a) {
         const int64_t width = a[1] ? r.Integer(*a[1], "width") : 80;
         return Padded(r, r.Str(*a[0]), width, Side::kBoth);
       }},
      {"float", {"value", "default"}, 1, Float},
      {"format", {}, 0, nullptr, Format},
      {"indent", {"value", "width", "first", "blank"}, 1, Indent},
      {"int", {"value", "default", "base"}, 1, Int},
      {"lower", {"value"}, 1, [](Runtime& r, Bound a) { return Lowercase(r, r.Str(*a[0])); }},
      {"replace", {"value", "old", "new", "count"}, 3, Replace},
      {"round", {"value", "precision", "method"}, 1, Round},
      {"safe", {"value"}, 1, [](Runtime& r, Bound a) { return r.Str(*a[0]); }},
      {"string", {"value"}, 1, [](Runtime& r, Bound a) { return r.Str(*a[0]); }},
      {"title", {"value"}, 1, Title},
      {"tojson", {"value", "ensure_ascii", "indent", "separators", "sort_keys"}, 1, ToJsonFilter},
      {"trim",
       {"value", "chars"},
       1,
       [](Runtime& r, Bound a) { return Stripped(r, r.Str(*a[0]), a[1], Side::kBoth); }},
      {"truncate", {"value", "length", "killwords", "end", "leeway"}, 1, Truncate},
      {"upper", {"value"}, 1, [](Runtime& r, Bound a) { return Uppercase(r, r.Str(*a[0])); }},
      {"wordcount", {"value"}, 1, WordCount},
  };
  return kFilters;
}

}  // namespace wideload::jinja
