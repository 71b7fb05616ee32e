#include "jinja/text_functions.h"

#include <algorithm>

#include "jinja/python_text.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {
namespace {

using tokenizer::Utf8At;
using tokenizer::Utf8Unit;

template <class Convert>
Value Mapped(Runtime& runtime, const Value& value, Convert convert) {
  const MarkedText& text = *value.Str();
  runtime.Work(2 * text.footprint());
  MarkedText result;
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text.text(), i);
    std::string converted;
    convert(unit.code_point, i, converted);
    result.Append(converted, text.IsPlain(i));
    i += unit.length;
  }
  return Value::Text(std::move(result));
}

// Python: a capital sigma at the end of a word becomes a final sigma.
bool IsFinalSigma(std::string_view text, size_t position) {
  size_t begin = position;
  const bool follows = position > 0 && IsCased(CodePointBefore(text, position, &begin));
  const size_t next = position + 2;
  return follows && (next >= text.size() || !IsCased(Utf8At(text, next).code_point));
}

void AppendLowerAt(const std::string& text, uint32_t code_point, size_t position,
                   std::string& out) {
  constexpr uint32_t kCapitalSigma = 0x3A3;
  if (code_point == kCapitalSigma && IsFinalSigma(text, position))
    tokenizer::AppendUtf8(0x3C2, out);
  else
    AppendLower(code_point, out);
}

bool IsLineEnd(uint32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

std::vector<Value> SplitAtSpace(Runtime& runtime, const MarkedText& text, int64_t max_splits) {
  std::vector<Value> parts;
  const std::string_view all = text.text();
  size_t begin = NumSpaceBytesAtBegin(all);
  while (begin < all.size()) {
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(runtime.Text(text.Slice(begin, all.size())));
      break;
    }
    size_t end = begin;
    while (end < all.size() && !IsSpace(Utf8At(all, end).code_point))
      end += Utf8At(all, end).length;
    parts.push_back(runtime.Text(text.Slice(begin, end)));
    begin = end + NumSpaceBytesAtBegin(all.substr(end));
  }
  return parts;
}

std::vector<Value> SplitAtSpaceFromRight(Runtime& runtime, const MarkedText& text,
                                         int64_t max_splits) {
  std::vector<Value> parts;
  const std::string_view all = text.text();
  size_t end = all.size() - NumSpaceBytesAtEnd(all);
  while (end > 0) {
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(runtime.Text(text.Slice(0, end)));
      break;
    }
    size_t begin = end;
    for (size_t before = 0; begin > 0; begin = before)
      if (IsSpace(CodePointBefore(all, begin, &before))) break;
    parts.push_back(runtime.Text(text.Slice(begin, end)));
    end = begin - NumSpaceBytesAtEnd(all.substr(0, begin));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

void CheckSeparator(Runtime& runtime, const MarkedText& separator) {
  if (separator.size() == 0) runtime.Refuse("splitting at an empty string");
}

}  // namespace

Value Stripped(Runtime& runtime, const Value& value, const std::optional<Value>& characters,
               Side side) {
  const MarkedText& text = *value.Str();
  const std::string_view all = text.text();
  size_t begin = 0;
  size_t end = all.size();
  if (!characters || characters->IsNone()) {
    if (side != Side::kRight) begin = NumSpaceBytesAtBegin(all);
    if (side != Side::kLeft) end -= NumSpaceBytesAtEnd(all.substr(begin));
  } else {
    const std::string& set = runtime.Characters(*characters, "what is stripped").text();
    const auto is_in_set = [&](size_t at, size_t length) {
      runtime.Work(set.size());
      return set.find(all.substr(at, length)) != std::string::npos;
    };
    while (side != Side::kRight && begin < end) {
      const size_t length = Utf8At(all, begin).length;
      if (!is_in_set(begin, length)) break;
      begin += length;
    }
    for (size_t before = 0; side != Side::kLeft && begin < end; end = before) {
      CodePointBefore(all, end, &before);
      if (!is_in_set(before, end - before)) break;
    }
  }
  runtime.Work(all.size() - (end - begin));
  return begin == 0 && end == all.size() ? value : runtime.Text(text.Slice(begin, end));
}

Value Uppercase(Runtime& runtime, const Value& value) {
  return Mapped(runtime, value, [](uint32_t c, size_t, std::string& out) { AppendUpper(c, out); });
}

Value Lowercase(Runtime& runtime, const Value& value) {
  const std::string& text = value.Str()->text();
  return Mapped(runtime, value, [&](uint32_t c, size_t position, std::string& out) {
    AppendLowerAt(text, c, position, out);
  });
}

Value Capitalized(Runtime& runtime, const Value& value) {
  const std::string& text = value.Str()->text();
  return Mapped(runtime, value, [&](uint32_t c, size_t position, std::string& out) {
    if (position == 0)
      AppendTitle(c, out);
    else
      AppendLowerAt(text, c, position, out);
  });
}

Value Replaced(Runtime& runtime, const Value& value, const MarkedText& from, const MarkedText& to,
               int64_t max_count) {
  const MarkedText& text = *value.Str();
  const std::string& all = text.text();
  runtime.Work(2 * text.footprint());
  MarkedText result;
  size_t done = 0;
  size_t search = 0;
  for (int64_t count = 0; max_count < 0 || count < max_count; ++count) {
    const size_t found = from.size() > 0 ? FindFirst(all, from.text(), search) : search;
    if (found == std::string::npos || found > all.size()) break;
    runtime.Work(to.footprint() + 1);
    result.Append(text, done, found);
    result.Append(to);
    done = found + from.size();
    // An empty string stands before each character and at the end.
    search = from.size() > 0      ? done
             : found < all.size() ? found + Utf8At(all, found).length
                                  : all.size() + 1;
  }
  if (done == 0 && result.size() == 0) return value;
  result.Append(text, done, all.size());
  return Value::Text(std::move(result));
}

std::vector<Value> Split(Runtime& runtime, const MarkedText& text, const MarkedText* separator,
                         int64_t max_splits) {
  runtime.Work(text.size());
  if (separator == nullptr) return SplitAtSpace(runtime, text, max_splits);
  CheckSeparator(runtime, *separator);
  std::vector<Value> parts;
  size_t begin = 0;
  while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
    const size_t found = FindFirst(text.text(), separator->text(), begin);
    if (found == std::string::npos) break;
    runtime.Step();
    parts.push_back(runtime.Text(text.Slice(begin, found)));
    begin = found + separator->size();
  }
  parts.push_back(runtime.Text(text.Slice(begin, text.size())));
  return parts;
}

std::vector<Value> SplitFromRight(Runtime& runtime, const MarkedText& text,
                                  const MarkedText* separator, int64_t max_splits) {
  runtime.Work(text.size());
  if (separator == nullptr) return SplitAtSpaceFromRight(runtime, text, max_splits);
  CheckSeparator(runtime, *separator);
  std::vector<Value> parts;
  size_t end = text.size();
  for (const size_t place : FindFromRight(text.text(), separator->text(), max_splits)) {
    runtime.Step();
    parts.push_back(runtime.Text(text.Slice(place + separator->size(), end)));
    end = place;
  }
  parts.push_back(runtime.Text(text.Slice(0, end)));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<Value> Lines(Runtime& runtime, const MarkedText& text, bool keeps_ends) {
  runtime.Work(text.size());
  std::vector<Value> lines;
  const std::string& all = text.text();
  size_t begin = 0;
  for (size_t i = 0; i < all.size();) {
    const Utf8Unit unit = Utf8At(all, i);
    const size_t end = i;
    i += unit.length;
    if (!IsLineEnd(unit.code_point)) continue;
    if (unit.code_point == '\r' && i < all.size() && all[i] == '\n') ++i;
    runtime.Step();
    lines.push_back(runtime.Text(text.Slice(begin, keeps_ends ? i : end)));
    begin = i;
  }
  if (begin < all.size()) lines.push_back(runtime.Text(text.Slice(begin, all.size())));
  return lines;
}

Value Padded(Runtime& runtime, const Value& value, int64_t width, Side text_side,
             std::string_view fill) {
  const MarkedText& text = *value.Str();
  const int64_t room = width - static_cast<int64_t>(NumCodePoints(text.text()));
  runtime.Work(text.size());
  if (room <= 0) return value;
  runtime.CheckRoom(static_cast<size_t>(room) * fill.size());
  // str.center puts the odd blank at the left when the width is odd.
  const int64_t left = room / 2 + (room & width & 1);
  const int64_t before = text_side == Side::kLeft ? 0 : text_side == Side::kRight ? room : left;
  MarkedText result;
  for (int64_t i = 0; i < before; ++i) result.Append(fill, false);
  result.Append(text);
  for (int64_t i = before; i < room; ++i) result.Append(fill, false);
  return runtime.Text(std::move(result));
}

Value Joined(Runtime& runtime, const MarkedText& separator, const std::vector<Value>& texts) {
  MarkedText result;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (i > 0) {
      runtime.Work(separator.footprint());
      result.Append(separator);
    }
    runtime.AppendStr(texts[i], result);
  }
  return Value::Text(std::move(result));
}

}  // namespace wideload::jinja
