// Python's str() and repr() of values.
#include <fmt/format.h>

#include "jinja/ast.h"
#include "jinja/python_text.h"
#include "jinja/runtime.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {
namespace {

std::string Escaped(uint32_t c) {
  if (c == '\n') return "\\n";
  if (c == '\r') return "\\r";
  if (c == '\t') return "\\t";
  if (c < 0x100) return fmt::format("\\x{:02x}", c);
  return c < 0x10000 ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c);
}

// Single quotes, but double ones around single ones.
void AppendQuoted(const MarkedText& value, MarkedText& out) {
  const std::string& text = value.text();
  const bool has_single = text.find('\'') != std::string::npos;
  const char quote = has_single && text.find('"') == std::string::npos ? '"' : '\'';
  out.Append(std::string_view(&quote, 1), false);
  size_t done = 0;
  for (size_t i = 0; i < text.size();) {
    const tokenizer::Utf8Unit unit = tokenizer::Utf8At(text, i);
    const uint32_t c = unit.code_point;
    const bool is_marked = c == '\\' || c == static_cast<uint8_t>(quote);
    if (is_marked || !IsPrintable(c)) {
      out.Append(value, done, i);
      out.Append(is_marked ? std::string{'\\', static_cast<char>(c)} : Escaped(c),
                 value.IsPlain(i));
      done = i + unit.length;
    }
    i += unit.length;
  }
  out.Append(value, done, text.size());
  out.Append(std::string_view(&quote, 1), false);
}

std::string_view Opening(Sequence::Kind kind) {
  switch (kind) {
    case Sequence::Kind::kTuple:
      return "(";
    case Sequence::Kind::kKeys:
      return "dict_keys([";
    case Sequence::Kind::kValues:
      return "dict_values([";
    case Sequence::Kind::kItems:
      return "dict_items([";
    default:
      return "[";
  }
}

std::string_view Closing(const Sequence& sequence) {
  if (sequence.kind == Sequence::Kind::kTuple) return sequence.items.size() == 1 ? ",)" : ")";
  return sequence.kind == Sequence::Kind::kList ? "]" : "])";
}

}  // namespace

Value Runtime::Str(const Value& value) {
  if (value.Str()) return value;
  MarkedText text;
  AppendStr(value, text);
  return Value::Text(std::move(text));
}

Value Runtime::Repr(const Value& value) {
  MarkedText text;
  AppendRepr(value, text);
  return Value::Text(std::move(text));
}

void Runtime::AppendStr(const Value& value, MarkedText& out) {
  if (const MarkedText* text = value.Str()) {
    Work(text->footprint());
    out.Append(*text);
  } else if (!value.IsUndefined()) {
    AppendRepr(value, out);
  }
}

void Runtime::AppendRepr(const Value& value, MarkedText& out) {
  const Level level(*this);
  Step();
  const auto print = [&](std::string_view text) {
    Work(text.size());
    out.Append(text, false);
  };
  if (value.IsUndefined()) return print("Undefined");
  if (value.IsNone()) return print("None");
  if (const bool* boolean = value.Bool()) return print(*boolean ? "True" : "False");
  if (const int64_t* integer = value.Int()) return print(fmt::to_string(*integer));
  if (const BigInteger* big = value.Big()) return print(big->digits);
  if (const double* number = value.Float()) return print(FloatText(*number));
  if (const MarkedText* text = value.Str()) {
    Work(2 * text->footprint());
    return AppendQuoted(*text, out);
  }
  if (const Dict* dict = value.Map()) {
    print("{");
    for (const Dict::Entry& entry : dict->entries()) {
      if (&entry != &dict->entries().front()) print(", ");
      AppendRepr(entry.key, out);
      print(": ");
      AppendRepr(entry.value, out);
    }
    return print("}");
  }
  if (const Sequence* sequence = value.Seq()) {
    if (sequence->kind == Sequence::Kind::kGenerator) Unsupported("printing a generator");
    if (sequence->kind == Sequence::Kind::kRange) {
      const auto& [begin, end, step] = sequence->range;
      return print(step == 1 ? fmt::format("range({}, {})", begin, end)
                             : fmt::format("range({}, {}, {})", begin, end, step));
    }
    print(Opening(sequence->kind));
    for (const Value& item : sequence->items) {
      if (&item != &sequence->items.front()) print(", ");
      AppendRepr(item, out);
    }
    return print(Closing(*sequence));
  }
  if (const auto loop = value.TheLoop())
    return print(fmt::format("<LoopContext {}/{}>", loop->index0 + 1, loop->Length()));
  const Callable* callable = value.Function();
  if (callable && callable->macro) return print(fmt::format("<Macro '{}'>", callable->macro->name));
  if (Namespace* space = value.Space()) {
    print("<Namespace {");
    for (const Dict::Entry& entry : space->attributes.entries()) {
      if (&entry != &space->attributes.entries().front()) print(", ");
      AppendRepr(entry.key, out);
      print(": ");
      AppendRepr(entry.value, out);
    }
    return print("}>");
  }
  Unsupported("printing " + KindOf(value));
}

}  // namespace wideload::jinja
