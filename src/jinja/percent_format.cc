#include "jinja/percent_format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "jinja/python_text.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {
namespace {

constexpr int64_t kMaxWidth = 10'000;
constexpr int64_t kMaxPrecision = 100;

// What both spellings have in common.
struct Conversion {
  bool is_left = false;
  bool is_centered = false;
  bool has_sign = false;
  bool has_space = false;
  bool is_alternate = false;
  bool is_zero_padded = false;
  bool has_commas = false;
  std::string fill = " ";
  int64_t width = 0;
  int64_t precision = -1;
  char type = 's';
};

void Pad(Runtime& runtime, const Conversion& how, const MarkedText& text, MarkedText& out) {
  const auto width = static_cast<size_t>(how.width);
  const size_t length = NumCodePoints(text.text());
  const size_t room = width > length ? width - length : 0;
  runtime.Work(text.footprint() + room * how.fill.size());
  const size_t before = how.is_left ? 0 : how.is_centered ? room / 2 : room;
  for (size_t i = 0; i < before; ++i) out.Append(how.fill, false);
  out.Append(text);
  for (size_t i = before; i < room; ++i) out.Append(how.fill, false);
}

std::string WithCommas(const std::string& digits) {
  const size_t whole = std::min(digits.find_first_of(".e"), digits.size());
  std::string result = digits;
  for (size_t i = whole; i > 3; i -= 3) result.insert(i - 3, ",");
  return result;
}

// The digits of |number| in `type`.
std::string IntegerDigits(uint64_t number, char type) {
  switch (type) {
    case 'x':
      return fmt::format("{:x}", number);
    case 'X':
      return fmt::format("{:X}", number);
    case 'o':
      return fmt::format("{:o}", number);
    case 'b':
      return fmt::format("{:b}", number);
    default:
      return fmt::to_string(number);
  }
}

void AppendNumber(Runtime& runtime, const Conversion& how, bool is_negative, std::string digits,
                  MarkedText& out) {
  if (how.has_commas) digits = WithCommas(digits);
  std::string sign = is_negative ? "-" : how.has_sign ? "+" : how.has_space ? " " : "";
  if (how.is_alternate &&
      (how.type == 'x' || how.type == 'X' || how.type == 'o' || how.type == 'b'))
    (sign += '0') += how.type;
  const size_t size = sign.size() + digits.size();
  const auto width = static_cast<size_t>(how.width);
  if (how.is_zero_padded && !how.is_left && width > size) digits.insert(0, width - size, '0');
  Pad(runtime, how, MarkedText(sign + digits, false), out);
}

void AppendInteger(Runtime& runtime, const Conversion& how, int64_t number, MarkedText& out) {
  const uint64_t magnitude =
      number < 0 ? uint64_t{0} - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
  std::string digits = IntegerDigits(magnitude, how.type);
  const auto least = static_cast<size_t>(std::max<int64_t>(how.precision, 0));
  if (digits.size() < least) digits.insert(0, least - digits.size(), '0');
  AppendNumber(runtime, how, number < 0, std::move(digits), out);
}

void AppendFloat(Runtime& runtime, const Conversion& how, double number, MarkedText& out) {
  const std::string format = fmt::format("%{}.*{}", how.is_alternate ? "#" : "", how.type);
  char buffer[512];  // 309 digits and the precision
  const int precision = static_cast<int>(how.precision < 0 ? 6 : how.precision);
  std::snprintf(buffer, sizeof(buffer), format.c_str(), precision, std::abs(number));
  AppendNumber(runtime, how, std::signbit(number) && !std::isnan(number), buffer, out);
}

bool IsFloatType(char type) { return std::string_view("fFeEgG").find(type) != std::string::npos; }

// One value of a % format.
void AppendConverted(Runtime& runtime, const Conversion& how, const Value& value, MarkedText& out) {
  if (how.type == 's' || how.type == 'r') {
    const Value text = how.type == 's' ? runtime.Str(value) : runtime.Repr(value);
    const MarkedText& whole = *text.Str();
    runtime.Work(whole.size());
    const size_t end = how.precision < 0
                           ? whole.size()
                           : ByteOfCodePoint(whole.text(), static_cast<size_t>(how.precision));
    return Pad(runtime, how, whole.Slice(0, end), out);
  }
  if (IsFloatType(how.type))
    return AppendFloat(runtime, how, runtime.Number(value, fmt::format("%{}", how.type)), out);
  if (std::string_view("diuxXo").find(how.type) != std::string::npos) {
    const double* real = value.Float();
    const bool truncates = real && how.type != 'x' && how.type != 'X' && how.type != 'o';
    if (truncates && std::abs(*real) >= 9.2e18) runtime.Unsupported("an integer beyond 64 bits");
    if (truncates) return AppendInteger(runtime, how, static_cast<int64_t>(*real), out);
    return AppendInteger(runtime, how, runtime.Integer(value, fmt::format("%{}", how.type)), out);
  }
  runtime.Unsupported(fmt::format("the conversion %{}", how.type));
}

// Reads a % format from left to right.
class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const MarkedText& format, const Value& values)
      : runtime_(runtime), format_(format), values_(values) {
    const Sequence* sequence = values.Seq();
    if (sequence && sequence->kind == Sequence::Kind::kTuple) tuple_ = sequence;
  }

  MarkedText Run() {
    runtime_.Work(format_.footprint());
    const std::string& text = format_.text();
    for (size_t i; (i = text.find('%', position_)) != std::string::npos;) {
      out_.Append(format_, position_, i);
      position_ = i + 1;
      Convert();
    }
    out_.Append(format_, position_, text.size());
    const bool leaves = tuple_ ? used_ < tuple_->items.size() : used_ == 0 && !HasItems(values_);
    if (leaves) runtime_.Refuse("not all values are used by the % format");
    return std::move(out_);
  }

 private:
  // Values whose items could be named are not counted, whether they are named or not.
  static bool HasItems(const Value& values) {
    const Sequence* sequence = values.Seq();
    return values.Map() || values.IsUndefined() ||
           (sequence &&
            (sequence->kind == Sequence::Kind::kList || sequence->kind == Sequence::Kind::kRange));
  }

  char Peek() const { return position_ < format_.size() ? format_.text()[position_] : '\0'; }

  void Convert() {
    const std::optional<Value> named = Named();
    Conversion how;
    for (;; ++position_) {
      if (Peek() == '-')
        how.is_left = true;
      else if (Peek() == '+')
        how.has_sign = true;
      else if (Peek() == ' ')
        how.has_space = true;
      else if (Peek() == '#')
        how.is_alternate = true;
      else if (Peek() == '0')
        how.is_zero_padded = true;
      else
        break;
    }
    how.width = Digits(kMaxWidth);
    if (Peek() == '.') {
      ++position_;
      how.precision = Digits(kMaxPrecision);
    }
    how.type = Peek();
    if (how.type == '\0') runtime_.Refuse("a % format that ends within a conversion");
    ++position_;
    if (how.type == '%') return out_.Append("%", false);
    if (how.type == '*') runtime_.Unsupported("a width taken from the values of a % format");
    AppendConverted(runtime_, how, named ? *named : NextValue(), out_);
  }

  // %(name)
  std::optional<Value> Named() {
    if (Peek() != '(') return std::nullopt;
    const size_t end = format_.text().find(')', position_);
    const Dict* dict = values_.Map();
    if (end == std::string::npos || dict == nullptr)
      runtime_.Refuse("%(name) of " + KindOf(values_));
    const std::string name = format_.text().substr(position_ + 1, end - position_ - 1);
    const Value* value = dict->Find(name);
    if (value == nullptr) runtime_.Refuse(fmt::format("%({}), which is not there", name));
    position_ = end + 1;
    ++used_;
    return *value;
  }

  int64_t Digits(int64_t max) {
    int64_t number = 0;
    for (; Peek() >= '0' && Peek() <= '9'; ++position_) {
      number = number * 10 + (Peek() - '0');
      if (number > max) runtime_.Unsupported(fmt::format("a width or precision over {}", max));
    }
    return number;
  }

  Value NextValue() {
    const size_t index = used_++;
    if (tuple_ && index < tuple_->items.size()) return tuple_->items[index];
    if (tuple_ || index > 0) runtime_.Refuse("not enough values for the % format");
    return values_;
  }

  Runtime& runtime_;
  const MarkedText& format_;
  const Value& values_;
  const Sequence* tuple_ = nullptr;
  size_t position_ = 0;
  size_t used_ = 0;
  MarkedText out_;
};

// [[fill]align][sign][#][0][width][,][.precision][type]
Conversion ParseSpec(Runtime& runtime, std::string_view spec) {
  Conversion how;
  how.type = '\0';
  size_t i = 0;
  const auto is_align = [&](size_t at) {
    return at < spec.size() && (spec[at] == '<' || spec[at] == '>' || spec[at] == '^');
  };
  const size_t fill = spec.empty() ? 0 : tokenizer::Utf8At(spec, 0).length;
  how.is_left = true;  // of text; numbers are set right
  const bool has_fill = fill > 0 && is_align(fill);
  if (has_fill) {
    how.fill = std::string(spec.substr(0, fill));
    i = fill;
  }
  if (is_align(i)) {
    how.is_left = spec[i] == '<';
    how.is_centered = spec[i] == '^';
    how.type = '!';  // alignment given
    ++i;
  }
  const bool is_aligned = how.type == '!';
  how.type = '\0';
  const auto accept = [&](char c) {
    const bool is_there = i < spec.size() && spec[i] == c;
    if (is_there) ++i;
    return is_there;
  };
  how.has_sign = accept('+');
  if (!how.has_sign && !accept('-')) how.has_space = accept(' ');
  how.is_alternate = accept('#');
  how.is_zero_padded = accept('0') && !is_aligned;
  const auto digits = [&](int64_t max) {
    int64_t number = 0;
    for (; i < spec.size() && spec[i] >= '0' && spec[i] <= '9'; ++i) {
      number = number * 10 + (spec[i] - '0');
      if (number > max) runtime.Unsupported(fmt::format("a width or precision over {}", max));
    }
    return number;
  };
  how.width = digits(kMaxWidth);
  how.has_commas = accept(',');
  if (accept('.')) how.precision = digits(kMaxPrecision);
  if (i < spec.size()) how.type = spec[i++];
  if (i < spec.size() || (how.type != '\0' && std::string_view("sdxXobfFeEgG").find(how.type) ==
                                                  std::string_view::npos))
    runtime.Unsupported(fmt::format("the format \"{}\"", spec));
  if (!is_aligned) how.is_centered = false;
  if (!is_aligned && how.type != '\0' && how.type != 's') how.is_left = false;
  return how;
}

void AppendWithSpec(Runtime& runtime, const Value& value, std::string_view spec, MarkedText& out) {
  if (spec.empty()) return runtime.AppendStr(value, out);
  Conversion how = ParseSpec(runtime, spec);
  const bool is_integer = value.Int() || value.Bool();
  const bool is_number = is_integer || value.Float();
  if (how.type == '\0') {
    if (value.Float()) runtime.Unsupported(fmt::format("the format \"{}\" of a float", spec));
    how.type = is_integer ? 'd' : 's';
    const bool is_aligned = spec.find_first_of("<>^") != std::string_view::npos;
    if (is_number && !is_aligned) how.is_left = false;
  }
  const bool is_of_number = how.has_commas || how.has_sign || how.has_space || how.is_alternate;
  if (how.type == 's' && how.is_zero_padded) how.fill = "0";
  const bool fits = how.type == 's' ? value.Str() && !is_of_number
                                    : is_number && (is_integer || IsFloatType(how.type));
  if (!fits) runtime.Refuse(fmt::format("the format \"{}\" of {}", spec, KindOf(value)));
  AppendConverted(runtime, how, value, out);
}

}  // namespace

MarkedText PercentFormat(Runtime& runtime, const MarkedText& format, const Value& values) {
  return PercentFormatter(runtime, format, values).Run();
}

MarkedText BraceFormat(Runtime& runtime, const MarkedText& format, const Arguments& arguments) {
  runtime.Work(format.footprint());
  const std::string& text = format.text();
  MarkedText out;
  size_t next_place = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t brace = std::min(text.find_first_of("{}", i), text.size());
    out.Append(format, i, brace);
    if (brace == text.size()) break;
    if (brace + 1 < text.size() && text[brace + 1] == text[brace]) {
      out.Append(format, brace, brace + 1);
      i = brace + 2;
      continue;
    }
    const size_t end = text.find_first_of("{}", brace + 1);
    if (text[brace] == '}' || end == std::string::npos)
      runtime.Refuse("a single brace in a format");
    if (text[end] == '{') runtime.Unsupported("a field within the field of a format");
    const std::string field = text.substr(brace + 1, end - brace - 1);
    const size_t colon = std::min(field.find(':'), field.size());
    std::string name = field.substr(0, colon);
    const std::string spec = colon < field.size() ? field.substr(colon + 1) : "";
    const size_t mark = std::min(name.find('!'), name.size());
    const std::string conversion = name.substr(mark);
    name.resize(mark);
    const bool is_place = name.find_first_not_of("0123456789") == std::string::npos;
    Value value;
    if (is_place && name.size() < 10) {
      const size_t place = name.empty() ? next_place++ : std::stoul(name);
      if (place >= arguments.positional.size()) runtime.Refuse("a format with too few values");
      value = arguments.positional[place];
    } else {
      const auto found = std::find_if(arguments.named.begin(), arguments.named.end(),
                                      [&](const auto& named) { return named.first == name; });
      if (name.find_first_of(".[") != std::string::npos)
        runtime.Unsupported("an attribute within a format");
      if (found == arguments.named.end())
        runtime.Refuse(fmt::format("a format with {}, which is not given", name));
      value = found->second;
    }
    if (conversion == "!s")
      value = runtime.Str(value);
    else if (conversion == "!r")
      value = runtime.Repr(value);
    else if (!conversion.empty())
      runtime.Unsupported("the conversion " + conversion);
    AppendWithSpec(runtime, value, spec, out);
    i = end + 1;
  }
  return out;
}

}  // namespace wideload::jinja
