// Filters that apply an attribute, a test or a filter to each item, and the tests. Source: jinja2
// 3.1, filters.py and tests.py.
#include <algorithm>

#include "jinja/ast.h"
#include "jinja/builtins.h"
#include "jinja/filters.h"
#include "jinja/python_text.h"
#include "jinja/runtime.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {
namespace {

using Bound = const BoundArguments&;
using SequenceKind = Sequence::Kind;

const Value& First(Runtime& runtime, const Arguments& arguments) {
  if (arguments.positional.empty()) runtime.Refuse("a filter without a value");
  return arguments.positional[0];
}

// The arguments from the given place on, after a place for the item.
Arguments Rest(const Arguments& arguments, size_t begin) {
  Arguments rest{.positional = {Value{}}, .named = arguments.named};
  if (begin < arguments.positional.size())
    rest.positional.insert(rest.positional.end(),
                           arguments.positional.begin() + static_cast<std::ptrdiff_t>(begin),
                           arguments.positional.end());
  return rest;
}

const Builtin& Named(Runtime& runtime, const Value& name, const Builtin* (*find)(std::string_view),
                     std::string_view what) {
  const std::string& text = runtime.Characters(name, fmt::format("the name of a {}", what)).text();
  const Builtin* found = find(text);
  if (found == nullptr) runtime.Unsupported(fmt::format("the {} {}", what, text));
  return *found;
}

// map(attribute=..., default=...)
void MapAttribute(Runtime& runtime, const Arguments& arguments, std::vector<Value>& items) {
  std::optional<Value> attribute;
  Value otherwise{None{}};
  for (const auto& [name, given] : arguments.named) {
    if (name == "attribute")
      attribute = given;
    else if (name == "default")
      otherwise = given;
    else
      runtime.Refuse("map has no argument " + name);
  }
  if (!attribute) runtime.Refuse("map needs a filter or an attribute");
  const AttributePath path(runtime, *attribute);
  for (const Value& item : runtime.Items(First(runtime, arguments))) {
    Value found = path.Of(runtime, item);
    items.push_back(found.IsUndefined() && !otherwise.IsNone() ? otherwise : std::move(found));
  }
}

Value Map(Runtime& runtime, const Arguments& arguments) {
  const Value& value = First(runtime, arguments);
  return runtime.Generator([&](std::vector<Value>& items) {
    if (!IsTrue(value)) return;
    if (arguments.positional.size() == 1) return MapAttribute(runtime, arguments, items);
    const Builtin& filter = Named(runtime, arguments.positional[1], FindFilter, "filter");
    Arguments rest = Rest(arguments, 2);
    const Runtime::Level level(runtime);
    for (const Value& item : runtime.Items(value)) {
      rest.positional[0] = item;
      items.push_back(runtime.CallBuiltin(filter, rest));
    }
  });
}

// select and reject; with an attribute selectattr and rejectattr.
Value Selected(Runtime& runtime, const Arguments& arguments, bool has_attribute, bool keeps) {
  const Value& value = First(runtime, arguments);
  return runtime.Generator([&](std::vector<Value>& items) {
    if (!IsTrue(value)) return;
    const size_t place = has_attribute ? 2 : 1;
    if (has_attribute && arguments.positional.size() < 2)
      runtime.Refuse("a filter without the name of its attribute");
    const AttributePath path(runtime, has_attribute ? arguments.positional[1] : Value{None{}});
    const Builtin* test = nullptr;
    if (arguments.positional.size() > place)
      test = &Named(runtime, arguments.positional[place], FindTest, "test");
    Arguments rest = Rest(arguments, place + 1);
    for (const Value& item : runtime.Items(value)) {
      rest.positional[0] = path.Of(runtime, item);
      const bool holds = IsTrue(test ? runtime.CallBuiltin(*test, rest) : rest.positional[0]);
      if (holds == keeps) items.push_back(item);
    }
  });
}

template <Operator op>
Value Compared(Runtime& runtime, Bound a) {
  return {runtime.Holds(op, *a[0], *a[1])};
}

Value Remainder(Runtime& runtime, const Value& value, const Value& divisor, int64_t expected) {
  const Value rest = runtime.Arithmetic(Operator::kModulo, value, divisor);
  return {runtime.AreEqual(rest, Value{expected})};
}

// str.islower and str.isupper: some letter, and none of the other case.
Value IsInCase(Runtime& runtime, const Value& value, bool (*is_right)(uint32_t)) {
  const Value text = runtime.Str(value);
  const std::string& all = text.Str()->text();
  runtime.Work(all.size());
  bool has_cased = false;
  for (size_t i = 0; i < all.size();) {
    const tokenizer::Utf8Unit unit = tokenizer::Utf8At(all, i);
    if (IsCased(unit.code_point)) {
      if (!is_right(unit.code_point)) return {false};
      has_cased = true;
    }
    i += unit.length;
  }
  return {has_cased};
}

// What Python could look up: no list, no mapping, nor a tuple of them.
bool IsHashable(const Value& value) {
  const Sequence* sequence = value.Seq();
  if (sequence && sequence->kind == SequenceKind::kTuple)
    return std::all_of(sequence->items.begin(), sequence->items.end(), IsHashable);
  return !value.Map() && !(sequence && sequence->kind == SequenceKind::kList);
}

Value IsNamed(Runtime& runtime, const Value& name, const Builtin* (*find)(std::string_view)) {
  if (!IsHashable(name)) runtime.Refuse(KindOf(name) + " as a name");
  return {name.Str() && find(name.Str()->text()) != nullptr};
}

Value IsSequence(Runtime&, Bound a) {
  const Sequence* sequence = a[0]->Seq();
  const bool is_indexed = sequence && (sequence->kind == SequenceKind::kList ||
                                       sequence->kind == SequenceKind::kTuple ||
                                       sequence->kind == SequenceKind::kRange);
  return {is_indexed || a[0]->Str() || a[0]->Map() || a[0]->IsUndefined()};
}

Value IsSame(Runtime& runtime, Bound a) {
  const Value& x = *a[0];
  const Value& y = *a[1];
  if (x.data.index() != y.data.index()) return {false};
  if (x.Seq()) return {x.Seq() == y.Seq()};
  if (x.Map()) return {x.Map() == y.Map()};
  if (x.Float() || x.Int() || x.Str()) runtime.Unsupported("sameas of " + KindOf(x));
  return {runtime.AreEqual(x, y)};
}

}  // namespace

std::span<const Builtin> SelectFilters() {
  static const std::vector<Builtin> kFilters = {
      {"map", {}, 0, nullptr, Map},
      {"reject",
       {},
       0,
       nullptr,
       [](Runtime& r, const Arguments& a) { return Selected(r, a, false, false); }},
      {"rejectattr",
       {},
       0,
       nullptr,
       [](Runtime& r, const Arguments& a) { return Selected(r, a, true, false); }},
      {"select",
       {},
       0,
       nullptr,
       [](Runtime& r, const Arguments& a) { return Selected(r, a, false, true); }},
      {"selectattr",
       {},
       0,
       nullptr,
       [](Runtime& r, const Arguments& a) { return Selected(r, a, true, true); }},
  };
  return kFilters;
}

std::span<const Builtin> Tests() {
  static const std::vector<std::string_view> kOne = {"value"};
  static const std::vector<std::string_view> kTwo = {"value", "other"};
  static const std::vector<Builtin> kTests = {
      {"!=", kTwo, 2, Compared<Operator::kNotEqual>},
      {"<", kTwo, 2, Compared<Operator::kLess>},
      {"<=", kTwo, 2, Compared<Operator::kLessEqual>},
      {"==", kTwo, 2, Compared<Operator::kEqual>},
      {">", kTwo, 2, Compared<Operator::kGreater>},
      {">=", kTwo, 2, Compared<Operator::kGreaterEqual>},
      {"boolean", kOne, 1, [](Runtime&, Bound a) { return Value{a[0]->Bool() != nullptr}; }},
      {"callable", kOne, 1,
       [](Runtime&, Bound a) {
         return Value{a[0]->Function() || a[0]->TheLoop() || a[0]->IsUndefined()};
       }},
      {"defined", kOne, 1, [](Runtime&, Bound a) { return Value{!a[0]->IsUndefined()}; }},
      {"divisibleby",
       {"value", "num"},
       2,
       [](Runtime& r, Bound a) { return Remainder(r, *a[0], *a[1], 0); }},
      {"eq", kTwo, 2, Compared<Operator::kEqual>},
      {"equalto", kTwo, 2, Compared<Operator::kEqual>},
      {"escaped", kOne, 1, [](Runtime&, Bound) { return Value{false}; }},
      {"even", kOne, 1,
       [](Runtime& r, Bound a) { return Remainder(r, *a[0], Value{int64_t{2}}, 0); }},
      {"false", kOne, 1, [](Runtime&, Bound a) { return Value{a[0]->Bool() && !*a[0]->Bool()}; }},
      {"filter", kOne, 1, [](Runtime& r, Bound a) { return IsNamed(r, *a[0], FindFilter); }},
      {"float", kOne, 1, [](Runtime&, Bound a) { return Value{a[0]->Float() != nullptr}; }},
      {"ge", kTwo, 2, Compared<Operator::kGreaterEqual>},
      {"greaterthan", kTwo, 2, Compared<Operator::kGreater>},
      {"gt", kTwo, 2, Compared<Operator::kGreater>},
      {"in", {"value", "seq"}, 2, Compared<Operator::kIn>},
      {"integer", kOne, 1,
       [](Runtime&, Bound a) { return Value{a[0]->Int() != nullptr || a[0]->Big() != nullptr}; }},
      {"iterable", kOne, 1, [](Runtime& r, Bound a) { return Value{r.IsIterable(*a[0])}; }},
      {"le", kTwo, 2, Compared<Operator::kLessEqual>},
      {"lessthan", kTwo, 2, Compared<Operator::kLess>},
      {"lower", kOne, 1, [](Runtime& r, Bound a) { return IsInCase(r, *a[0], IsLower); }},
      {"lt", kTwo, 2, Compared<Operator::kLess>},
      {"mapping", kOne, 1, [](Runtime&, Bound a) { return Value{a[0]->Map() != nullptr}; }},
      {"ne", kTwo, 2, Compared<Operator::kNotEqual>},
      {"none", kOne, 1, [](Runtime&, Bound a) { return Value{a[0]->IsNone()}; }},
      {"number", kOne, 1,
       [](Runtime&, Bound a) {
         return Value{a[0]->Bool() || a[0]->Int() || a[0]->Float() || a[0]->Big()};
       }},
      {"odd", kOne, 1,
       [](Runtime& r, Bound a) { return Remainder(r, *a[0], Value{int64_t{2}}, 1); }},
      {"sameas", kTwo, 2, IsSame},
      {"sequence", kOne, 1, IsSequence},
      {"string", kOne, 1, [](Runtime&, Bound a) { return Value{a[0]->Str() != nullptr}; }},
      {"test", kOne, 1, [](Runtime& r, Bound a) { return IsNamed(r, *a[0], FindTest); }},
      {"true", kOne, 1, [](Runtime&, Bound a) { return Value{a[0]->Bool() && *a[0]->Bool()}; }},
      {"undefined", kOne, 1, [](Runtime&, Bound a) { return Value{a[0]->IsUndefined()}; }},
      {"upper", kOne, 1, [](Runtime& r, Bound a) { return IsInCase(r, *a[0], IsUpper); }},
  };
  return kTests;
}

}  // namespace wideload::jinja
