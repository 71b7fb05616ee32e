// The functions of the language, and finding what has a name.
#include <algorithm>
#include <ctime>

#include "jinja/builtins.h"
#include "jinja/filters.h"
#include "jinja/runtime.h"

namespace wideload::jinja {
namespace {

using Bound = const BoundArguments&;

constexpr int64_t kMaxRange = 100'000;  // the sandbox's

Value Range(Runtime& runtime, Bound a) {
  auto range = std::make_shared<Sequence>();
  range->kind = Sequence::Kind::kRange;
  int64_t(&bounds)[3] = range->range;
  bounds[a[1] ? 0 : 1] = runtime.Integer(*a[0], "a bound of range()");
  if (a[1]) bounds[1] = runtime.Integer(*a[1], "a bound of range()");
  if (a[2]) bounds[2] = runtime.Integer(*a[2], "the step of range()");
  const auto [begin, end, step] = bounds;
  if (step == 0) runtime.Refuse("range() with step 0");
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<int64_t>(range->items.size()) == kMaxRange)
      runtime.Refuse(fmt::format("a range of more than {} numbers", kMaxRange));
    range->items.push_back({i});
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  runtime.Work(range->items.size() * sizeof(Value));
  return {std::shared_ptr<const Sequence>(std::move(range))};
}

// dict(mapping, a=1): of namespaces, too.
Dict DictOf(Runtime& runtime, const Arguments& arguments, std::string_view what) {
  if (arguments.positional.size() > 1)
    runtime.Refuse(fmt::format("{} takes at most one mapping", what));
  Dict dict;
  if (!arguments.positional.empty()) {
    const Value& given = arguments.positional[0];
    if (const Dict* other = given.Map()) {
      for (const Dict::Entry& entry : other->entries())
        runtime.SetKey(dict, entry.key, entry.value);
    } else {
      for (const Value& pair : runtime.Items(given)) {
        std::vector<Value> parts = runtime.Items(pair);
        if (parts.size() != 2) runtime.Refuse(fmt::format("{} of items that are no pairs", what));
        runtime.SetKey(dict, std::move(parts[0]), std::move(parts[1]));
      }
    }
  }
  for (const auto& [name, value] : arguments.named)
    runtime.SetKey(dict, Value::Text(name, false), value);
  return dict;
}

Value NamespaceOf(Runtime& runtime, const Arguments& arguments) {
  const Value space = runtime.NewNamespace();
  space.Space()->attributes = DictOf(runtime, arguments, "namespace()");
  return space;
}

[[noreturn]] void Raise(Runtime& runtime, Bound a) {
  const Value text = runtime.Str(*a[0]);
  runtime.Refuse("the template refuses the conversation: " + text.Str()->text());
}

std::tm TimeOf(const CivilTime& now) {
  std::tm time{};
  time.tm_year = now.year - 1900;
  time.tm_mon = now.month - 1;
  time.tm_mday = now.day;
  time.tm_hour = now.hour;
  time.tm_min = now.minute;
  time.tm_sec = now.second;
  time.tm_isdst = -1;
  std::tm for_weekday = time;
  for_weekday.tm_isdst = 0;
  ::timegm(&for_weekday);
  time.tm_wday = for_weekday.tm_wday;
  time.tm_yday = for_weekday.tm_yday;
  return time;
}

Value TimeText(Runtime& runtime, Bound a) {
  const MarkedText& format = runtime.Characters(*a[0], "the format of strftime_now()");
  runtime.Work(format.size());
  const std::tm time = TimeOf(runtime.now());
  const std::string& text = format.text();
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      result += text[i];
      continue;
    }
    std::string conversion = "%";
    if (i + 1 < text.size() && text[i + 1] == '-') conversion += text[++i];  // no leading zeros
    const char letter = ++i < text.size() ? text[i] : '\0';
    conversion += letter;
    if (letter == 'f') {
      result += fmt::format("{:06}", runtime.now().microsecond);
    } else if (letter == 'z' || letter == 'Z') {
      continue;  // a time without zone
    } else if (letter != '\0' &&
               std::string_view("aAbBcCdDeFgGhHIjmMnpRStTuUVwWxXyY%").find(letter) !=
                   std::string_view::npos) {
      char buffer[128];
      result.append(buffer, std::strftime(buffer, sizeof(buffer), conversion.c_str(), &time));
    } else {
      runtime.Unsupported(fmt::format("the conversion {} of strftime_now()", conversion));
    }
  }
  return runtime.Text(std::move(result));
}

template <int which>
Value NotThere(Runtime& runtime, const Arguments&) {
  constexpr const char* kNames[] = {"cycler()", "joiner()", "lipsum()"};
  runtime.Unsupported(kNames[which]);
}

const Builtin* FindIn(std::span<const Builtin> table, std::string_view name) {
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const Builtin& builtin) { return builtin.name == name; });
  return found == table.end() ? nullptr : &*found;
}

bool IsOneOf(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

std::span<const Builtin> Functions() {
  static const std::vector<Builtin> kFunctions = {
      {"cycler", {}, 0, nullptr, NotThere<0>},
      {"dict",
       {},
       0,
       nullptr,
       [](Runtime& r, const Arguments& a) { return r.Mapping(DictOf(r, a, "dict()")); }},
      {"joiner", {}, 0, nullptr, NotThere<1>},
      {"lipsum", {}, 0, nullptr, NotThere<2>},
      {"namespace", {}, 0, nullptr, NamespaceOf},
      {"raise_exception", {"message"}, 1, [](Runtime& r, Bound a) -> Value { Raise(r, a); }},
      {"range", {"start", "stop", "step"}, 1, Range},
      {"strftime_now", {"format"}, 1, TimeText},
  };
  return kFunctions;
}

const Builtin* FindFilter(std::string_view name) {
  for (const auto table : {TextFilters(), ListFilters(), SelectFilters()})
    if (const Builtin* found = FindIn(table, name)) return found;
  return nullptr;
}

const Builtin* FindTest(std::string_view name) { return FindIn(Tests(), name); }
const Builtin* FindFunction(std::string_view name) { return FindIn(Functions(), name); }

const Builtin* FindMethod(const Value& object, std::string_view name) {
  if (object.Map()) return FindIn(DictMethods(), name);
  if (object.Str()) return FindIn(TextMethods(), name);
  if (object.TheLoop()) return FindIn(LoopMethods(), name);
  const Sequence* sequence = object.Seq();
  if (sequence == nullptr) return nullptr;
  const bool is_list = sequence->kind == Sequence::Kind::kList;
  if (!is_list && (sequence->kind != Sequence::Kind::kTuple || name == "copy")) return nullptr;
  return FindIn(ListMethods(), name);
}

PythonAttribute AttributeInPython(const Value& object, std::string_view name) {
  const Sequence* sequence = object.Seq();
  const bool is_list = sequence && sequence->kind == Sequence::Kind::kList;
  if (object.Map() && IsOneOf(name, {"clear", "pop", "popitem", "setdefault", "update"}))
    return PythonAttribute::kForbidden;
  if (is_list &&
      IsOneOf(name, {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"}))
    return PythonAttribute::kForbidden;
  if (object.Map() && name == "fromkeys") return PythonAttribute::kUnsupported;
  if (object.Str() &&
      IsOneOf(name, {"casefold", "encode", "expandtabs", "format_map", "isascii", "isidentifier",
                     "isprintable", "istitle", "maketrans", "translate"}))
    return PythonAttribute::kUnsupported;
  const bool is_number = object.Bool() || object.Int() || object.Float() || object.Big();
  if (is_number && IsOneOf(name, {"as_integer_ratio", "bit_count", "bit_length", "conjugate",
                                  "denominator", "from_bytes", "fromhex", "hex", "imag",
                                  "is_integer", "numerator", "real", "to_bytes"}))
    return PythonAttribute::kUnsupported;
  if (sequence && sequence->kind == Sequence::Kind::kRange &&
      IsOneOf(name, {"start", "stop", "step", "count", "index"}))
    return PythonAttribute::kUnsupported;
  const Callable* callable = object.Function();
  if (callable && callable->macro &&
      IsOneOf(name, {"arguments", "caller", "catch_kwargs", "catch_varargs"}))
    return PythonAttribute::kUnsupported;
  return PythonAttribute::kNone;
}

}  // namespace wideload::jinja
