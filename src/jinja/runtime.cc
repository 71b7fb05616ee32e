#include "jinja/runtime.h"

#include <algorithm>

#include "jinja/ast.h"
#include "jinja/builtins.h"
#include "jinja/python_text.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {

// A loop asks for its items one by one: a test of the loop sees what its body did before.
std::optional<Value> Loop::Fetch() {
  if (!ahead.empty()) {
    std::optional<Value> next = std::move(ahead.back());
    ahead.pop_back();
    return next;
  }
  return fetch ? fetch() : std::nullopt;
}

bool Loop::Peek() {
  if (!after) after = Fetch();
  return after.has_value();
}

bool Loop::Advance() {
  std::optional<Value> next = Peek() ? std::exchange(after, std::nullopt) : std::nullopt;
  if (!next) return false;
  ++index0;
  before = std::move(current);
  current = std::move(next);
  return true;
}

int64_t Loop::Length() {
  std::vector<Value> rest;
  while (std::optional<Value> next = Fetch()) rest.push_back(std::move(*next));
  const auto num_rest = static_cast<int64_t>(rest.size());
  ahead.assign(std::make_move_iterator(rest.rbegin()), std::make_move_iterator(rest.rend()));
  return index0 + 1 + (after ? 1 : 0) + num_rest;
}

void Runtime::Step(int64_t num_steps) {
  steps_ += num_steps;
  if (steps_ > options_.limits.max_steps)
    Throw(ErrorKind::kResource, "{}: line {}: rendering took more than {} steps", source_, line_,
          options_.limits.max_steps);
}

void Runtime::CheckRoom(size_t num_bytes) const {
  const int64_t room = options_.limits.max_work_bytes - work_bytes_;
  if (num_bytes > static_cast<size_t>(room))
    Throw(ErrorKind::kResource, "{}: line {}: rendering moved more than {} bytes", source_, line_,
          options_.limits.max_work_bytes);
}

void Runtime::Work(size_t num_bytes) {
  CheckRoom(num_bytes);
  work_bytes_ += static_cast<int64_t>(num_bytes);
}

Runtime::Level::Level(Runtime& r) : runtime(r) {
  if (runtime.level_ >= runtime.options_.limits.max_level)
    Throw(ErrorKind::kResource, "{}: line {}: rendering went deeper than {} levels",
          runtime.source_, runtime.line_, runtime.options_.limits.max_level);
  ++runtime.level_;
}

Value Runtime::Text(MarkedText text) {
  Work(text.footprint());
  return Value::Text(std::move(text));
}

Value Runtime::List(std::vector<Value> items, Sequence::Kind kind) {
  Work(items.size() * sizeof(Value));
  auto list = std::make_shared<Sequence>();
  list->kind = kind;
  for (const Value& item : items) list->depth = std::max(list->depth, DepthOf(item) + 1);
  if (list->depth > kMaxValueDepth)
    Refuse(fmt::format("a list nested deeper than {}", kMaxValueDepth));
  list->items = std::move(items);
  return {std::shared_ptr<const Sequence>(std::move(list))};
}

Value Runtime::Generator(const std::function<void(std::vector<Value>&)>& fill) {
  auto generator = std::make_shared<Sequence>();
  generator->kind = Sequence::Kind::kGenerator;
  try {
    fill(generator->items);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kResource) throw;
    generator->failure = std::current_exception();
  }
  Work(generator->items.size() * sizeof(Value));
  for (const Value& item : generator->items)
    generator->depth = std::max(generator->depth, DepthOf(item) + 1);
  if (generator->depth > kMaxValueDepth)
    Refuse(fmt::format("a list nested deeper than {}", kMaxValueDepth));
  return {std::shared_ptr<const Sequence>(std::move(generator))};
}

const Value* Runtime::NextOf(const Sequence& generator) {
  if (generator.consumed < generator.items.size()) return &generator.items[generator.consumed++];
  if (generator.failure) std::rethrow_exception(generator.failure);
  return nullptr;
}

Value Runtime::Mapping(Dict dict) {
  if (dict.depth() > kMaxValueDepth)
    Refuse(fmt::format("a mapping nested deeper than {}", kMaxValueDepth));
  return {std::make_shared<const Dict>(std::move(dict))};
}

Value Runtime::NewNamespace() {
  Work(sizeof(Namespace));
  namespaces_.push_back(std::make_unique<Namespace>());
  return {namespaces_.back().get()};
}

void Runtime::SetKey(Dict& dict, Value key, Value value) {
  Step();
  const MarkedText* text = key.Str();
  Work(sizeof(Dict::Entry) + 64 + (text ? text->size() : 0));  // an entry, and what the index takes
  if (DepthOf(value) >= kMaxValueDepth)
    Refuse(fmt::format("a mapping nested deeper than {}", kMaxValueDepth));
  const std::string kind = KindOf(key);
  const bool is_tuple = key.Seq() && key.Seq()->kind == Sequence::Kind::kTuple;
  if (is_tuple) Unsupported("a tuple as a key of a mapping");
  if (!dict.Set(std::move(key), std::move(value))) Refuse(kind + " as a key of a mapping");
}

std::vector<Value> Runtime::Items(const Value& value) {
  std::vector<Value> items;
  if (value.IsUndefined()) return items;
  if (const Sequence* sequence = value.Seq()) {
    const bool is_generator = sequence->kind == Sequence::Kind::kGenerator;
    const size_t begin = is_generator ? sequence->consumed : 0;
    Work((sequence->items.size() - begin) * sizeof(Value));
    items.assign(sequence->items.begin() + static_cast<std::ptrdiff_t>(begin),
                 sequence->items.end());
    if (is_generator) sequence->consumed = sequence->items.size();
    if (is_generator) NextOf(*sequence);  // the end, or what is in its place
  } else if (const Dict* dict = value.Map()) {
    Work(dict->entries().size() * sizeof(Value));
    for (const Dict::Entry& entry : dict->entries()) items.push_back(entry.key);
  } else if (const MarkedText* text = value.Str()) {
    for (size_t i = 0; i < text->size();) {
      const size_t length = tokenizer::Utf8At(text->text(), i).length;
      Work(sizeof(MarkedText) + sizeof(Value) + sizeof(MarkedText::Span));
      items.push_back(Value::Text(text->Slice(i, i + length)));
      i += length;
    }
  } else {
    Refuse("iterating over " + KindOf(value));
  }
  Step(static_cast<int64_t>(items.size()));
  return items;
}

bool Runtime::IsIterable(const Value& value) const {
  return value.IsUndefined() || value.Seq() || value.Map() || value.Str() || value.TheLoop();
}

std::optional<int64_t> Runtime::Length(const Value& value) {
  if (value.IsUndefined()) return 0;
  if (const MarkedText* text = value.Str()) {
    Work(text->size());
    return static_cast<int64_t>(NumCodePoints(text->text()));
  }
  const Sequence* sequence = value.Seq();
  if (sequence && sequence->kind != Sequence::Kind::kGenerator)
    return static_cast<int64_t>(sequence->items.size());
  if (const Dict* dict = value.Map()) return static_cast<int64_t>(dict->entries().size());
  if (const auto loop = value.TheLoop()) return loop->Length();
  return std::nullopt;
}

int64_t Runtime::Integer(const Value& value, std::string_view what) {
  int64_t integer = 0;
  if (value.Big()) Refuse(fmt::format("{} is an integer beyond 64 bits", what));
  if (!AsInteger(value, &integer))
    Refuse(fmt::format("{} is {}; it must be an integer", what, KindOf(value)));
  return integer;
}

double Runtime::Number(const Value& value, std::string_view what) {
  double number = 0;
  if (value.Big()) Refuse(fmt::format("{} is an integer beyond 64 bits", what));
  if (!AsDouble(value, &number))
    Refuse(fmt::format("{} is {}; it must be a number", what, KindOf(value)));
  return number;
}

const MarkedText& Runtime::Characters(const Value& value, std::string_view what) {
  const MarkedText* text = value.Str();
  if (text == nullptr) Refuse(fmt::format("{} is {}; it must be a string", what, KindOf(value)));
  return *text;
}

Value Runtime::CallBuiltin(const Builtin& builtin, const Arguments& arguments) {
  Step();
  if (builtin.run_any != nullptr) return builtin.run_any(*this, arguments);
  const auto& names = builtin.parameters;
  if (arguments.positional.size() > names.size())
    Refuse(fmt::format("{} takes at most {} arguments", builtin.name, names.size()));
  BoundArguments bound(names.size());
  for (size_t i = 0; i < arguments.positional.size(); ++i) bound[i] = arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) Refuse(fmt::format("{} has no argument {}", builtin.name, name));
    auto& place = bound[static_cast<size_t>(found - names.begin())];
    if (place) Refuse(fmt::format("{} was given {} twice", builtin.name, name));
    place = value;
  }
  for (size_t i = 0; i < builtin.num_required; ++i)
    if (!bound[i]) Refuse(fmt::format("{} needs the argument {}", builtin.name, names[i]));
  return builtin.run(*this, bound);
}

}  // namespace wideload::jinja
