#include "jinja/json_text.h"

#include <algorithm>

#include "jinja/python_text.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style)
      : runtime_(runtime),
        style_(style),
        item_separator_(
            style.item_separator.value_or(MarkedText(style.indent ? "," : ", ", false))),
        key_separator_(style.key_separator.value_or(MarkedText(": ", false))) {}

  Value Run(const Value& value) {
    Write(value);
    return Value::Text(std::move(out_));
  }

 private:
  void Print(std::string_view text, bool is_plain = false) {
    runtime_.Work(text.size());
    out_.Append(text, is_plain);
  }
  void Print(const MarkedText& text) {
    runtime_.Work(text.footprint());
    out_.Append(text);
  }

  void BreakLine() {
    if (!style_.indent) return;
    Print("\n");
    for (int i = 0; i < depth_; ++i) Print(*style_.indent);
  }

  void Write(const Value& value) {
    const Runtime::Level level(runtime_);
    runtime_.Step();
    if (value.IsNone()) return Print("null");
    if (const bool* boolean = value.Bool()) return Print(*boolean ? "true" : "false");
    if (const int64_t* integer = value.Int()) return Print(fmt::to_string(*integer));
    if (const BigInteger* big = value.Big()) return Print(big->digits);
    if (const double* number = value.Float()) return Print(FloatJson(*number));
    if (const MarkedText* text = value.Str()) return WriteText(*text);
    if (const Dict* dict = value.Map()) return WriteDict(*dict);
    const Sequence* sequence = value.Seq();
    if (sequence == nullptr ||
        (sequence->kind != Sequence::Kind::kList && sequence->kind != Sequence::Kind::kTuple))
      runtime_.Refuse("tojson of " + KindOf(value));
    WriteList(*sequence);
  }

  static std::string FloatJson(double number) {
    const std::string text = FloatText(number);
    if (text == "nan") return "NaN";
    if (text == "inf") return "Infinity";
    return text == "-inf" ? "-Infinity" : text;
  }

  void WriteList(const Sequence& list) {
    if (list.items.empty()) return Print("[]");
    Print("[");
    ++depth_;
    for (const Value& item : list.items) {
      if (&item != &list.items.front()) Print(item_separator_);
      BreakLine();
      Write(item);
    }
    --depth_;
    BreakLine();
    Print("]");
  }

  void WriteDict(const Dict& dict) {
    if (dict.entries().empty()) return Print("{}");
    std::vector<const Dict::Entry*> entries;
    runtime_.Work(dict.entries().size() * sizeof(Dict::Entry*));
    for (const Dict::Entry& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sorts_keys)
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        return runtime_.Compare(a->key, b->key) < 0;
      });
    Print("{");
    ++depth_;
    for (const Dict::Entry* entry : entries) {
      if (entry != entries.front()) Print(item_separator_);
      BreakLine();
      WriteKey(entry->key);
      Print(key_separator_);
      Write(entry->value);
    }
    --depth_;
    BreakLine();
    Print("}");
  }

  void WriteKey(const Value& key) {
    if (key.Str()) return Write(key);
    Print("\"");
    Write(key);
    Print("\"");
  }

  void WriteText(const MarkedText& value) {
    runtime_.Work(2 * value.footprint());
    const std::string& text = value.text();
    out_.Append("\"", false);
    size_t done = 0;
    for (size_t i = 0; i < text.size();) {
      const tokenizer::Utf8Unit unit = tokenizer::Utf8At(text, i);
      const std::string escape = Escape(unit.code_point);
      if (!escape.empty()) {
        out_.Append(value, done, i);
        out_.Append(escape, value.IsPlain(i));
        done = i + unit.length;
      }
      i += unit.length;
    }
    out_.Append(value, done, text.size());
    out_.Append("\"", false);
  }

  // Empty for a character that stands for itself.
  std::string Escape(uint32_t c) const {
    constexpr std::string_view kNamed = "\"\\\n\r\t\b\f";
    constexpr std::string_view kLetters = "\"\\nrtbf";
    if (c < 0x80) {
      const size_t index = kNamed.find(static_cast<char>(c));
      if (index != std::string_view::npos) return {'\\', kLetters[index]};
    }
    if (c < 0x20) return fmt::format("\\u{:04x}", c);
    if (!style_.ensures_ascii || c < 0x7F) return "";
    if (c == 0x7F) return "";
    if (c < 0x10000) return fmt::format("\\u{:04x}", c);
    const uint32_t rest = c - 0x10000;
    return fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  const MarkedText item_separator_;
  const MarkedText key_separator_;
  MarkedText out_;
  int depth_ = 0;
};

}  // namespace

Value ToJson(Runtime& runtime, const Value& value, const JsonStyle& style) {
  return JsonWriter(runtime, style).Run(value);
}

}  // namespace wideload::jinja
