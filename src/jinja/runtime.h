// What a rendering and the functions of the language share: the budget, the place for errors, the
// clock, and Python's operations on values. One rendering, one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "jinja/callable.h"
#include "jinja/template.h"
#include "jinja/value.h"

namespace wideload::jinja {

class Runtime {
 public:
  // Both must outlive this object.
  Runtime(const std::string& source, const RenderOptions& options)
      : source_(source), options_(options) {}
  virtual ~Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Errors: kInvalid with source and line.
  [[noreturn]] void Refuse(const std::string& what) const {
    Throw(ErrorKind::kInvalid, "{}: line {}: {}", source_, line_, what);
  }
  // Throws kUnsupported with the place.
  [[noreturn]] void Unsupported(const std::string& what) const {
    Throw(ErrorKind::kUnsupported, "{}: line {}: {} is not supported", source_, line_, what);
  }
  const std::string& source() const { return source_; }
  // Where the rendering is, for messages.
  void set_line(int line) { line_ = line; }
  const CivilTime& now() const { return options_.now; }

  // Count against the budget. Errors: kResource.
  void Step(int64_t num_steps = 1);
  // Bytes that are made, copied or looked through.
  void Work(size_t num_bytes);
  void CheckRoom(size_t num_bytes) const;  // whether Work(num_bytes) would be refused
  // Counts the depth of recursion for as long as it lives.
  struct Level {
    // One level deeper while it lives. Errors: kResource beyond the limit.
    explicit Level(Runtime& r);
    ~Level() { --runtime.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    Runtime& runtime;
  };

  // Values made here are counted.
  Value Text(MarkedText text);
  Value Text(std::string text, bool is_plain = false) {
    return Text(MarkedText(std::move(text), is_plain));
  }
  // A sequence that holds the items.
  Value List(std::vector<Value> items, Sequence::Kind kind = Sequence::Kind::kList);
  // What Python makes item by item: an error is told when the item is asked for that has it.
  Value Generator(const std::function<void(std::vector<Value>&)>& fill);
  // A mapping that holds the entries.
  Value Mapping(Dict dict);
  // An empty namespace(), whose attributes can be set.
  Value NewNamespace();
  // dict[key] = value. Errors: kInvalid for what can be no key and for values nested too deep,
  // kUnsupported for tuples as keys.
  void SetKey(Dict& dict, Value key, Value value);

  // The value's text as Python's str() and repr() have it.
  Value Str(const Value& value);
  // repr(value).
  Value Repr(const Value& value);
  // str(value), at the end of `out`.
  void AppendStr(const Value& value, MarkedText& out);
  // repr(value), at the end of `out`.
  void AppendRepr(const Value& value, MarkedText& out);

  // What iterating gives: items, keys, characters. Uses up a generator. Errors: kInvalid for a
  // value that cannot be iterated.
  std::vector<Value> Items(const Value& value);
  // Whether Items takes it.
  bool IsIterable(const Value& value) const;
  // The next item of a generator; null at its end.
  static const Value* NextOf(const Sequence& generator);
  // len(); nothing for a value without.
  std::optional<int64_t> Length(const Value& value);

  // a == b, as Python has it.
  bool AreEqual(const Value& a, const Value& b);
  // Negative, 0, positive. Errors: kInvalid for values without order.
  int Compare(const Value& a, const Value& b);
  // A comparison, as Python has it. Errors: as Compare.
  bool Holds(Operator op, const Value& a, const Value& b);
  // value in container. Errors: kInvalid for what holds nothing.
  bool Contains(const Value& container, const Value& value);
  // An operator on numbers, texts and sequences, as Python has it. Errors: kInvalid for other
  // operands.
  Value Arithmetic(Operator op, const Value& a, const Value& b);
  // -value. Errors: kInvalid for what is no number.
  Value Negate(const Value& value);
  // +value. Errors: likewise.
  Value Plus(const Value& value);

  // object.name, object[index], object[begin:end:step].
  Value Attribute(const Value& object, std::string_view name);
  // object[index]; undefined where there is none.
  Value Item(const Value& object, const Value& index);
  // object[start:stop:step]; a bound may be none. Errors: kInvalid for what cannot be cut.
  Value Slice(const Value& object, const Value (&bounds)[3]);

  // Errors: kInvalid, saying what is expected where.
  int64_t Integer(const Value& value, std::string_view what);
  // A number. Errors: kInvalid naming `what`.
  double Number(const Value& value, std::string_view what);
  // A text. Errors: kInvalid naming `what`.
  const MarkedText& Characters(const Value& value, std::string_view what);

  // Binds the arguments and runs it. Errors: kInvalid for arguments that do not fit.
  Value CallBuiltin(const Builtin& builtin, const Arguments& arguments);
  // Calls a function, a macro or a method. Errors: kInvalid for what cannot be called.
  virtual Value Call(const Value& callee, const Arguments& arguments) = 0;

 private:
  Value ArithmeticOfNumbers(Operator op, const Value& a, const Value& b);
  Value ArithmeticOfIntegers(Operator op, int64_t a, int64_t b);
  Value ArithmeticOfFloats(Operator op, double a, double b);
  Value Repeated(const Value& value, int64_t times);
  Value LoopAttribute(Loop& loop, const Value& value, std::string_view name);

  const std::string& source_;
  const RenderOptions& options_;
  std::vector<std::unique_ptr<Namespace>> namespaces_;
  int line_ = 0;
  int64_t steps_ = 0;
  int64_t work_bytes_ = 0;
  int level_ = 0;
};

}  // namespace wideload::jinja
