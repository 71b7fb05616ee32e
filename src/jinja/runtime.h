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
  Runtime(const std::string& source, const RenderOptions& options)
      : source_(source), options_(options) {}
  virtual ~Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Errors: kInvalid with source and line.
  [[noreturn]] void Refuse(const std::string& what) const {
    Throw(ErrorKind::kInvalid, "{}: line {}: {}", source_, line_, what);
  }
  [[noreturn]] void Unsupported(const std::string& what) const {
    Throw(ErrorKind::kUnsupported, "{}: line {}: {} is not supported", source_, line_, what);
  }
  const std::string& source() const { return source_; }
  void set_line(int line) { line_ = line; }
  const CivilTime& now() const { return options_.now; }

  // Count against the budget. Errors: kResource.
  void Step(int64_t num_steps = 1);
  // Bytes that are made, copied or looked through.
  void Work(size_t num_bytes);
  void CheckRoom(size_t num_bytes) const;  // whether Work(num_bytes) would be refused
  // Counts the depth of recursion for as long as it lives.
  struct Level {
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
  Value List(std::vector<Value> items, Sequence::Kind kind = Sequence::Kind::kList);
  // What Python makes item by item: an error is told when the item is asked for that has it.
  Value Generator(const std::function<void(std::vector<Value>&)>& fill);
  Value Mapping(Dict dict);
  Value NewNamespace();
  void SetKey(Dict& dict, Value key, Value value);

  // The value's text as Python's str() and repr() have it.
  Value Str(const Value& value);
  Value Repr(const Value& value);
  void AppendStr(const Value& value, MarkedText& out);
  void AppendRepr(const Value& value, MarkedText& out);

  // What iterating gives: items, keys, characters. Uses up a generator. Errors: kInvalid for a
  // value that cannot be iterated.
  std::vector<Value> Items(const Value& value);
  bool IsIterable(const Value& value) const;
  // The next item of a generator; null at its end.
  static const Value* NextOf(const Sequence& generator);
  // len(); nothing for a value without.
  std::optional<int64_t> Length(const Value& value);

  bool AreEqual(const Value& a, const Value& b);
  // Negative, 0, positive. Errors: kInvalid for values without order.
  int Compare(const Value& a, const Value& b);
  bool Holds(Operator op, const Value& a, const Value& b);
  bool Contains(const Value& container, const Value& value);
  Value Arithmetic(Operator op, const Value& a, const Value& b);
  Value Negate(const Value& value);
  Value Plus(const Value& value);

  // object.name, object[index], object[begin:end:step].
  Value Attribute(const Value& object, std::string_view name);
  Value Item(const Value& object, const Value& index);
  Value Slice(const Value& object, const Value (&bounds)[3]);

  // Errors: kInvalid, saying what is expected where.
  int64_t Integer(const Value& value, std::string_view what);
  double Number(const Value& value, std::string_view what);
  const MarkedText& Characters(const Value& value, std::string_view what);

  Value CallBuiltin(const Builtin& builtin, const Arguments& arguments);
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
