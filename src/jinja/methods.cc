// Methods of strings, lists, mappings and loops.
#include <algorithm>

#include "jinja/ast.h"
#include "jinja/filters.h"
#include "jinja/percent_format.h"
#include "jinja/python_text.h"
#include "jinja/runtime.h"
#include "jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {
namespace {

using Bound = const BoundArguments&;
using SequenceKind = Sequence::Kind;

bool IsGiven(const std::optional<Value>& value) { return value && !value->IsNone(); }

int64_t CountOf(Runtime& runtime, const std::optional<Value>& value) {
  return value ? runtime.Integer(*value, "a count") : -1;
}

template <auto split>
Value SplitMethod(Runtime& runtime, Bound a) {
  const MarkedText* separator = IsGiven(a[1]) ? &runtime.Characters(*a[1], "a separator") : nullptr;
  return runtime.List(split(runtime, *a[0]->Str(), separator, CountOf(runtime, a[2])));
}

// The part of the text between the bounds that find, count, startswith and endswith take.
struct Part {
  std::string_view text;
  int64_t first_code_point = 0;
  bool is_inside = true;  // the beginning is not after the end
};

Part PartOf(Runtime& runtime, const Value& value, const std::optional<Value>& begin,
            const std::optional<Value>& end) {
  const std::string_view all = value.Str()->text();
  runtime.Work(all.size());
  if (!IsGiven(begin) && !IsGiven(end)) return {.text = all};
  const auto size = static_cast<int64_t>(NumCodePoints(all));
  const auto place = [&](const std::optional<Value>& bound, int64_t otherwise) {
    if (!IsGiven(bound)) return otherwise;
    const int64_t at = runtime.Integer(*bound, "a position");
    return at < 0 ? std::max<int64_t>(at + size, 0) : at;
  };
  const int64_t first = place(begin, 0);
  const int64_t last = std::min(place(end, size), size);
  if (first > last) return {.is_inside = false};
  const size_t from = ByteOfCodePoint(all, static_cast<size_t>(first));
  const std::string_view rest = all.substr(from);
  return {.text = rest.substr(0, ByteOfCodePoint(rest, static_cast<size_t>(last - first))),
          .first_code_point = first};
}

// startswith and endswith; of several affixes in a tuple, any.
Value HasAffix(Runtime& runtime, Bound a, bool at_begin) {
  const Part part = PartOf(runtime, *a[0], a[2], a[3]);
  const auto has = [&](const Value& affix) {
    const std::string& text = runtime.Characters(affix, "what a string begins or ends with").text();
    if (!part.is_inside || text.size() > part.text.size()) return false;
    return at_begin ? part.text.substr(0, text.size()) == text
                    : part.text.substr(part.text.size() - text.size()) == text;
  };
  const Sequence* several = a[1]->Seq();
  if (several && several->kind == SequenceKind::kTuple)
    return {std::any_of(several->items.begin(), several->items.end(), has)};
  return {has(*a[1])};
}

std::optional<int64_t> Find(Runtime& runtime, Bound a, bool from_right) {
  const Part part = PartOf(runtime, *a[0], a[2], a[3]);
  const std::string& what = runtime.Characters(*a[1], "what is looked for").text();
  const size_t found = from_right ? FindLast(part.text, what) : FindFirst(part.text, what);
  if (!part.is_inside || found == std::string_view::npos) return std::nullopt;
  return part.first_code_point + static_cast<int64_t>(NumCodePoints(part.text.substr(0, found)));
}

Value FindMethod(Runtime& runtime, Bound a) { return {Find(runtime, a, false).value_or(-1)}; }
Value RightFindMethod(Runtime& runtime, Bound a) { return {Find(runtime, a, true).value_or(-1)}; }
template <bool from_right>
Value IndexMethod(Runtime& runtime, Bound a) {
  const std::optional<int64_t> found = Find(runtime, a, from_right);
  if (!found) runtime.Refuse("what is looked for is not in the string");
  return {*found};
}

Value Count(Runtime& runtime, Bound a) {
  const Part part = PartOf(runtime, *a[0], a[2], a[3]);
  const std::string& what = runtime.Characters(*a[1], "what is counted").text();
  if (!part.is_inside) return {int64_t{0}};
  if (what.empty()) return {static_cast<int64_t>(NumCodePoints(part.text)) + 1};
  int64_t count = 0;
  for (size_t i = 0; (i = FindFirst(part.text, what, i)) != std::string_view::npos;
       i += what.size())
    ++count;
  return {count};
}

// isalpha and the like: holds for all characters of a text that is not empty.
template <bool (*holds)(uint32_t)>
Value All(Runtime& runtime, Bound a) {
  const std::string& text = a[0]->Str()->text();
  runtime.Work(text.size());
  for (size_t i = 0; i < text.size();) {
    const tokenizer::Utf8Unit unit = tokenizer::Utf8At(text, i);
    if (!holds(unit.code_point)) return {false};
    i += unit.length;
  }
  return {!text.empty()};
}

bool IsAlphaOrNumber(uint32_t c) {
  return IsAlpha(c) || IsDecimal(c) || IsDigit(c) || IsNumeric(c);
}

template <bool is_upper>
Value IsCase(Runtime& runtime, Bound a) {
  const std::string& text = a[0]->Str()->text();
  runtime.Work(text.size());
  bool has_cased = false;
  for (size_t i = 0; i < text.size();) {
    const tokenizer::Utf8Unit unit = tokenizer::Utf8At(text, i);
    const bool is_cased = IsCased(unit.code_point);
    if (is_cased && !(is_upper ? IsUpper(unit.code_point) : IsLower(unit.code_point)))
      return {false};
    has_cased |= is_cased;
    i += unit.length;
  }
  return {has_cased};
}

// str.title: a letter after a character without case begins a word.
Value Title(Runtime& runtime, Bound a) {
  const MarkedText& text = *a[0]->Str();
  runtime.Work(2 * text.footprint());
  MarkedText result;
  bool is_inside = false;
  for (size_t i = 0; i < text.size();) {
    const tokenizer::Utf8Unit unit = tokenizer::Utf8At(text.text(), i);
    std::string converted;
    if (is_inside)
      AppendLower(unit.code_point, converted);
    else
      AppendTitle(unit.code_point, converted);
    result.Append(converted, text.IsPlain(i));
    is_inside = IsCased(unit.code_point);
    i += unit.length;
  }
  return Value::Text(std::move(result));
}

Value SwapCase(Runtime& runtime, Bound a) {
  const MarkedText& text = *a[0]->Str();
  runtime.Work(2 * text.footprint());
  MarkedText result;
  for (size_t i = 0; i < text.size();) {
    const tokenizer::Utf8Unit unit = tokenizer::Utf8At(text.text(), i);
    std::string converted;
    if (IsUpper(unit.code_point))
      AppendLower(unit.code_point, converted);
    else if (IsLower(unit.code_point))
      AppendUpper(unit.code_point, converted);
    else
      tokenizer::AppendUtf8(unit.code_point, converted);
    result.Append(converted, text.IsPlain(i));
    i += unit.length;
  }
  return Value::Text(std::move(result));
}

template <bool at_begin>
Value RemoveAffix(Runtime& runtime, Bound a) {
  const MarkedText& text = *a[0]->Str();
  const std::string& affix = runtime.Characters(*a[1], "what is removed").text();
  if (affix.empty() || text.size() < affix.size()) return *a[0];
  const size_t begin = at_begin ? 0 : text.size() - affix.size();
  if (text.text().compare(begin, affix.size(), affix) != 0) return *a[0];
  return runtime.Text(at_begin ? text.Slice(affix.size(), text.size()) : text.Slice(0, begin));
}

template <bool from_right>
Value Partition(Runtime& runtime, Bound a) {
  const MarkedText& text = *a[0]->Str();
  const MarkedText& separator = runtime.Characters(*a[1], "a separator");
  if (separator.size() == 0) runtime.Refuse("a partition at an empty string");
  runtime.Work(text.size());
  const size_t found = from_right ? FindLast(text.text(), separator.text())
                                  : FindFirst(text.text(), separator.text());
  const Value empty = Value::Text("", false);
  if (found == std::string::npos)
    return runtime.List(from_right ? std::vector<Value>{empty, empty, *a[0]}
                                   : std::vector<Value>{*a[0], empty, empty},
                        SequenceKind::kTuple);
  return runtime.List({runtime.Text(text.Slice(0, found)), *a[1],
                       runtime.Text(text.Slice(found + separator.size(), text.size()))},
                      SequenceKind::kTuple);
}

template <Side text_side>
Value PadMethod(Runtime& runtime, Bound a) {
  const std::string fill = a[2] ? runtime.Characters(*a[2], "a fill character").text() : " ";
  if (NumCodePoints(fill) != 1) runtime.Refuse("a fill; it must be one character");
  return Padded(runtime, *a[0], runtime.Integer(*a[1], "a width"), text_side, fill);
}

Value ZeroFill(Runtime& runtime, Bound a) {
  const MarkedText& text = *a[0]->Str();
  const bool has_sign = text.size() > 0 && (text.text()[0] == '-' || text.text()[0] == '+');
  const int64_t width = runtime.Integer(*a[1], "a width");
  if (!has_sign) return Padded(runtime, *a[0], width, Side::kRight, "0");
  const Value digits = runtime.Text(text.Slice(1, text.size()));
  const Value padded = Padded(runtime, digits, std::max<int64_t>(width, 1) - 1, Side::kRight, "0");
  MarkedText result = text.Slice(0, 1);
  result.Append(*padded.Str());
  return runtime.Text(std::move(result));
}

Value JoinMethod(Runtime& runtime, Bound a) {
  const std::vector<Value> texts = runtime.Items(*a[1]);
  for (const Value& text : texts) runtime.Characters(text, "an item of join()");
  return Joined(runtime, *a[0]->Str(), texts);
}

Value FormatMethod(Runtime& runtime, const Arguments& arguments) {
  Arguments rest{.positional = {arguments.positional.begin() + 1, arguments.positional.end()},
                 .named = arguments.named};
  return Value::Text(BraceFormat(runtime, *arguments.positional[0].Str(), rest));
}

Value ReplaceMethod(Runtime& runtime, Bound a) {
  return Replaced(runtime, *a[0], runtime.Characters(*a[1], "what is replaced"),
                  runtime.Characters(*a[2], "what replaces"), CountOf(runtime, a[3]));
}

Value IndexOfItem(Runtime& runtime, Bound a) {
  const std::vector<Value>& items = a[0]->Seq()->items;
  for (size_t i = 0; i < items.size(); ++i)
    if (runtime.AreEqual(items[i], *a[1])) return {static_cast<int64_t>(i)};
  runtime.Refuse("index() of what is not in the list");
}

Value CountOfItem(Runtime& runtime, Bound a) {
  const std::vector<Value>& items = a[0]->Seq()->items;
  return {static_cast<int64_t>(std::count_if(items.begin(), items.end(), [&](const Value& item) {
    return runtime.AreEqual(item, *a[1]);
  }))};
}

template <SequenceKind kind>
Value DictView(Runtime& runtime, Bound a) {
  std::vector<Value> items;
  for (const Dict::Entry& entry : a[0]->Map()->entries()) {
    runtime.Step();
    if (kind == SequenceKind::kItems)
      items.push_back(runtime.List({entry.key, entry.value}, SequenceKind::kTuple));
    else
      items.push_back(kind == SequenceKind::kKeys ? entry.key : entry.value);
  }
  return runtime.List(std::move(items), kind);
}

Value Get(Runtime& runtime, Bound a) {
  const bool is_tuple = a[1]->Seq() && a[1]->Seq()->kind == SequenceKind::kTuple;
  if (a[1]->Map() || (a[1]->Seq() && !is_tuple)) runtime.Refuse("get() with " + KindOf(*a[1]));
  const Value* found = a[0]->Map()->Find(*a[1]);
  return found ? *found : a[2].value_or(Value{None{}});
}

Value Changed(Runtime& runtime, const Arguments& arguments) {
  const auto loop = arguments.positional[0].TheLoop();
  std::vector<Value> now(arguments.positional.begin() + 1, arguments.positional.end());
  for (const Value& value : now)
    if (DepthOf(value) >= kMaxValueDepth || value.TheLoop() || value.Function())
      runtime.Unsupported("changed() of " + KindOf(value));
  bool is_same = loop->changed && loop->changed->size() == now.size();
  for (size_t i = 0; is_same && i < now.size(); ++i)
    is_same = runtime.AreEqual((*loop->changed)[i], now[i]);
  loop->changed = std::move(now);
  return {!is_same};
}

Value Cycle(Runtime& runtime, const Arguments& arguments) {
  const size_t count = arguments.positional.size() - 1;
  if (count == 0) runtime.Refuse("cycle() without values");
  const auto index = static_cast<size_t>(arguments.positional[0].TheLoop()->index0);
  return arguments.positional[1 + index % count];
}

template <Side side>
Value StripMethod(Runtime& runtime, Bound a) {
  return Stripped(runtime, *a[0], a[1], side);
}

}  // namespace

std::span<const Builtin> TextMethods() {
  static const std::vector<std::string_view> kSelf = {"self"};
  static const std::vector<std::string_view> kPart = {"self", "text", "start", "end"};
  static const std::vector<Builtin> kMethods = {
      {"capitalize", kSelf, 1, [](Runtime& r, Bound a) { return Capitalized(r, *a[0]); }},
      {"center", {"self", "width", "fillchar"}, 2, PadMethod<Side::kBoth>},
      {"count", kPart, 2, Count},
      {"endswith", kPart, 2, [](Runtime& r, Bound a) { return HasAffix(r, a, false); }},
      {"find", kPart, 2, FindMethod},
      {"format", {}, 0, nullptr, FormatMethod},
      {"index", kPart, 2, IndexMethod<false>},
      {"isalnum", kSelf, 1, All<IsAlphaOrNumber>},
      {"isalpha", kSelf, 1, All<IsAlpha>},
      {"isdecimal", kSelf, 1, All<IsDecimal>},
      {"isdigit", kSelf, 1, All<IsDigit>},
      {"islower", kSelf, 1, IsCase<false>},
      {"isnumeric", kSelf, 1, All<IsNumeric>},
      {"isspace", kSelf, 1, All<IsSpace>},
      {"isupper", kSelf, 1, IsCase<true>},
      {"join", {"self", "items"}, 2, JoinMethod},
      {"ljust", {"self", "width", "fillchar"}, 2, PadMethod<Side::kLeft>},
      {"lower", kSelf, 1, [](Runtime& r, Bound a) { return Lowercase(r, *a[0]); }},
      {"lstrip", {"self", "chars"}, 1, StripMethod<Side::kLeft>},
      {"partition", {"self", "sep"}, 2, Partition<false>},
      {"removeprefix", {"self", "prefix"}, 2, RemoveAffix<true>},
      {"removesuffix", {"self", "suffix"}, 2, RemoveAffix<false>},
      {"replace", {"self", "old", "new", "count"}, 3, ReplaceMethod},
      {"rfind", kPart, 2, RightFindMethod},
      {"rindex", kPart, 2, IndexMethod<true>},
      {"rjust", {"self", "width", "fillchar"}, 2, PadMethod<Side::kRight>},
      {"rpartition", {"self", "sep"}, 2, Partition<true>},
      {"rsplit", {"self", "sep", "maxsplit"}, 1, SplitMethod<SplitFromRight>},
      {"rstrip", {"self", "chars"}, 1, StripMethod<Side::kRight>},
      {"split", {"self", "sep", "maxsplit"}, 1, SplitMethod<Split>},
      {"splitlines",
       {"self", "keepends"},
       1,
       [](Runtime& r, Bound a) { return r.List(Lines(r, *a[0]->Str(), a[1] && IsTrue(*a[1]))); }},
      {"startswith", kPart, 2, [](Runtime& r, Bound a) { return HasAffix(r, a, true); }},
      {"strip", {"self", "chars"}, 1, StripMethod<Side::kBoth>},
      {"swapcase", kSelf, 1, SwapCase},
      {"title", kSelf, 1, Title},
      {"upper", kSelf, 1, [](Runtime& r, Bound a) { return Uppercase(r, *a[0]); }},
      {"zfill", {"self", "width"}, 2, ZeroFill},
  };
  return kMethods;
}

std::span<const Builtin> ListMethods() {
  static const std::vector<Builtin> kMethods = {
      {"copy", {"self"}, 1, [](Runtime& r, Bound a) { return r.List(r.Items(*a[0])); }},
      {"count", {"self", "value"}, 2, CountOfItem},
      {"index", {"self", "value"}, 2, IndexOfItem},
  };
  return kMethods;
}

std::span<const Builtin> DictMethods() {
  static const std::vector<Builtin> kMethods = {
      {"copy", {"self"}, 1, [](Runtime&, Bound a) { return *a[0]; }},
      {"get", {"self", "key", "default"}, 2, Get},
      {"items", {"self"}, 1, DictView<SequenceKind::kItems>},
      {"keys", {"self"}, 1, DictView<SequenceKind::kKeys>},
      {"values", {"self"}, 1, DictView<SequenceKind::kValues>},
  };
  return kMethods;
}

std::span<const Builtin> LoopMethods() {
  static const std::vector<Builtin> kMethods = {
      {"changed", {}, 0, nullptr, Changed},
      {"cycle", {}, 0, nullptr, Cycle},
  };
  return kMethods;
}

}  // namespace wideload::jinja
