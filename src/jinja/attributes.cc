// object.name, object[index] and slices, as jinja2's sandbox looks them up.
#include <algorithm>

#include "jinja/ast.h"
#include "jinja/builtins.h"
#include "jinja/python_text.h"
#include "jinja/runtime.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {
namespace {

bool IsIndexed(const Sequence& sequence) {
  return sequence.kind == Sequence::Kind::kList || sequence.kind == Sequence::Kind::kTuple ||
         sequence.kind == Sequence::Kind::kRange;
}

struct SliceRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t step = 1;
};

// Python's slice.indices().
SliceRange RangeOf(const std::optional<int64_t> (&bounds)[3], int64_t size) {
  SliceRange range{.step = bounds[2].value_or(1)};
  const int64_t lowest = range.step < 0 ? -1 : 0;
  const int64_t highest = range.step < 0 ? size - 1 : size;
  const auto place = [&](const std::optional<int64_t>& bound, int64_t otherwise) {
    if (!bound) return otherwise;
    return *bound < 0 ? std::max(*bound + size, lowest) : std::min(*bound, highest);
  };
  range.begin = place(bounds[0], range.step < 0 ? highest : lowest);
  range.end = place(bounds[1], range.step < 0 ? lowest : highest);
  return range;
}

// Calls take(index) for each index of the slice.
template <class Take>
void ForEach(const SliceRange& range, Take take) {
  int64_t i = range.begin;
  while (range.step < 0 ? i > range.end : i < range.end) {
    take(i);
    if (__builtin_add_overflow(i, range.step, &i)) break;
  }
}

}  // namespace

Value Runtime::Attribute(const Value& object, std::string_view name) {
  if (object.IsUndefined()) Refuse(fmt::format("\"{}\" of {}", name, KindOf(object)));
  const Value missing = Value::Missing(std::string(name));
  if (Namespace* space = object.Space()) {
    const Value* value = space->attributes.Find(name);
    return value ? *value : missing;
  }
  if (const auto loop = object.TheLoop()) return LoopAttribute(*loop, object, name);
  if (const Builtin* method = FindMethod(object, name)) {
    Callable callable{.builtin = method, .self = object};
    return {std::make_shared<const Callable>(std::move(callable))};
  }
  const Sequence* sequence = object.Seq();
  if (sequence && sequence->is_group && name == "grouper") return sequence->items[0];
  if (sequence && sequence->is_group && name == "list") return sequence->items[1];
  const Callable* callable = object.Function();
  if (callable && callable->macro && name == "name") return Text(callable->macro->name);
  switch (AttributeInPython(object, name)) {
    case PythonAttribute::kForbidden:
      return Value::Missing(fmt::format("{}, which would change {}", name, KindOf(object)));
    case PythonAttribute::kUnsupported:
      Unsupported(fmt::format("\"{}\" of {}", name, KindOf(object)));
    case PythonAttribute::kNone:
      break;
  }
  const Dict* dict = object.Map();
  const Value* value = dict ? dict->Find(name) : nullptr;
  return value ? *value : missing;
}

Value Runtime::LoopAttribute(Loop& loop, const Value& value, std::string_view name) {
  if (name == "index") return {loop.index0 + 1};
  if (name == "index0") return {loop.index0};
  if (name == "first") return {loop.index0 == 0};
  if (name == "last") return {!loop.Peek()};
  if (name == "length") return {loop.Length()};
  if (name == "revindex") return {loop.Length() - loop.index0};
  if (name == "revindex0") return {loop.Length() - loop.index0 - 1};
  if (name == "depth") return {loop.depth0 + 1};
  if (name == "depth0") return {loop.depth0};
  if (name == "previtem")
    return loop.index0 > 0 && loop.before ? *loop.before : Value::Missing("no previous item");
  if (name == "nextitem") return loop.Peek() ? *loop.after : Value::Missing("no next item");
  if (const Builtin* method = FindMethod(value, name)) {
    Callable callable{.builtin = method, .self = value};
    return {std::make_shared<const Callable>(std::move(callable))};
  }
  return Value::Missing(std::string(name));
}

Value Runtime::Item(const Value& object, const Value& index) {
  if (object.IsUndefined()) Refuse(fmt::format("an item of {}", KindOf(object)));
  const MarkedText* name = index.Str();
  if (const Dict* dict = object.Map()) {
    if (name) Work(name->size());
    if (const Value* value = dict->Find(index)) return *value;
  }
  if (name) return Attribute(object, name->text());
  int64_t place = 0;
  if (!AsInteger(index, &place)) return Value::Missing(KindOf(index) + " as an index");
  const Value missing = Value::Missing("an index out of range");
  const Sequence* sequence = object.Seq();
  if (sequence && IsIndexed(*sequence)) {
    const auto size = static_cast<int64_t>(sequence->items.size());
    if (place < 0) place += size;
    return place < 0 || place >= size ? missing : sequence->items[static_cast<size_t>(place)];
  }
  const MarkedText* text = object.Str();
  if (text == nullptr) return missing;
  Work(text->size());
  if (place < 0) place += static_cast<int64_t>(NumCodePoints(text->text()));
  if (place < 0) return missing;
  const size_t begin = ByteOfCodePoint(text->text(), static_cast<size_t>(place));
  if (begin >= text->size()) return missing;
  return Text(text->Slice(begin, begin + tokenizer::Utf8At(text->text(), begin).length));
}

Value Runtime::Slice(const Value& object, const Value (&bounds)[3]) {
  if (object.IsUndefined()) Refuse(fmt::format("a slice of {}", KindOf(object)));
  const Sequence* sequence = object.Seq();
  const MarkedText* text = object.Str();
  if (!text && !(sequence && IsIndexed(*sequence))) Refuse("a slice of " + KindOf(object));
  std::optional<int64_t> numbers[3];
  for (int i = 0; i < 3; ++i) {
    int64_t number = 0;
    if (bounds[i].IsNone()) continue;
    if (!AsInteger(bounds[i], &number)) Refuse(KindOf(bounds[i]) + " as a bound of a slice");
    numbers[i] = number;
  }
  if (numbers[2] == 0) Refuse("a slice with step 0");
  if (sequence) {
    if (sequence->kind == Sequence::Kind::kRange) Unsupported("a slice of a range");
    std::vector<Value> items;
    const SliceRange range = RangeOf(numbers, static_cast<int64_t>(sequence->items.size()));
    ForEach(range, [&](int64_t i) {
      Step();
      items.push_back(sequence->items[static_cast<size_t>(i)]);
    });
    return List(std::move(items), sequence->kind);
  }
  Work(2 * text->size());
  const SliceRange range = RangeOf(numbers, static_cast<int64_t>(NumCodePoints(text->text())));
  if (range.step == 1) {
    if (range.begin >= range.end) return Value::Text("", false);
    const size_t begin = ByteOfCodePoint(text->text(), static_cast<size_t>(range.begin));
    const size_t length = ByteOfCodePoint(std::string_view(text->text()).substr(begin),
                                          static_cast<size_t>(range.end - range.begin));
    return Text(text->Slice(begin, begin + length));
  }
  const std::vector<Value> characters = Items(object);
  MarkedText result;
  ForEach(range, [&](int64_t i) { result.Append(*characters[static_cast<size_t>(i)].Str()); });
  return Text(std::move(result));
}

}  // namespace wideload::jinja
