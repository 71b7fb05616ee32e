// The values of a template: Python's, as far as templates can tell. Copies are cheap: strings,
// lists and mappings are shared and never change; only namespaces do. A rendering's values belong
// to its thread.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "jinja/marked_text.h"

namespace wideload::jinja {

class Runtime;
struct Value;
struct Callable;  // a function, a method of a value, a macro
struct Loop;      // the variable `loop`
class Namespace;

// A name, key or index that is not there; `message` says which.
struct Undefined {
  std::shared_ptr<const std::string> message;
};
// Python's None.
struct None {};
// An integer beyond 64 bits: printed, not computed with.
struct BigInteger {
  std::string digits;  // decimal, with - where negative
};

// Lists and what Python has in their place.
struct Sequence {
  // What Python would call it.
  enum class Kind { kList, kTuple, kRange, kKeys, kValues, kItems, kGenerator };
  Kind kind = Kind::kList;
  std::vector<Value> items;
  int depth = 1;                 // of the nesting
  mutable size_t consumed = 0;   // kGenerator: the items before it are used up
  std::exception_ptr failure{};  // kGenerator: why there are no more items; null at its true end
  bool is_group = false;         // a tuple with the attributes grouper and list
  int64_t range[3] = {0, 0, 1};  // kRange, as given
};

class Dict;
// Shared and never changed.
using String = std::shared_ptr<const MarkedText>;

struct Value {
  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const BigInteger>, String,
               std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>, Namespace*,
               std::shared_ptr<const Callable>, std::shared_ptr<Loop>>
      data{};

  // All of it plain, or none.
  static Value Text(std::string text, bool is_plain) {
    return {std::make_shared<const MarkedText>(std::move(text), is_plain)};
  }
  // With its own marks.
  static Value Text(MarkedText text) {
    return {std::make_shared<const MarkedText>(std::move(text))};
  }
  // An undefined value; the message is told when it is used.
  static Value Missing(std::string message) {
    return {Undefined{std::make_shared<const std::string>(std::move(message))}};
  }

  bool IsUndefined() const { return std::holds_alternative<Undefined>(data); }
  bool IsNone() const { return std::holds_alternative<None>(data); }
  const bool* Bool() const { return std::get_if<bool>(&data); }
  const int64_t* Int() const { return std::get_if<int64_t>(&data); }
  const double* Float() const { return std::get_if<double>(&data); }
  const BigInteger* Big() const { return Pointee<BigInteger>(); }
  const MarkedText* Str() const { return Pointee<MarkedText>(); }
  const Sequence* Seq() const { return Pointee<Sequence>(); }
  const Dict* Map() const { return Pointee<Dict>(); }
  const Callable* Function() const { return Pointee<Callable>(); }
  // Null for another kind of value.
  Namespace* Space() const {
    auto* const* space = std::get_if<Namespace*>(&data);
    return space ? *space : nullptr;
  }
  // Likewise.
  std::shared_ptr<Loop> TheLoop() const {
    const auto* loop = std::get_if<std::shared_ptr<Loop>>(&data);
    return loop ? *loop : nullptr;
  }

 private:
  template <class T>
  const T* Pointee() const {
    const auto* pointer = std::get_if<std::shared_ptr<const T>>(&data);
    return pointer ? pointer->get() : nullptr;
  }
};

// A mapping in the order of insertion. Keys: strings, numbers, booleans, none.
class Dict {
 public:
  // A key and its value.
  struct Entry {
    Value key;
    Value value;
  };

  const std::vector<Entry>& entries() const { return entries_; }
  int depth() const { return depth_; }
  // Null when there is none.
  const Value* Find(std::string_view key) const;
  // Null when there is none, and for a key of another kind.
  const Value* Find(const Value& key) const;
  // Replaces the value of an equal key. False for a key of another kind.
  bool Set(Value key, Value value);

 private:
  size_t IndexOf(std::string_view spelled) const;  // entries_.size() when absent

  std::vector<Entry> entries_;
  std::unique_ptr<std::unordered_map<std::string, size_t>> index_;  // once there are many
  int depth_ = 1;
};

// What namespace() makes; its attributes can be set from any scope.
class Namespace {
 public:
  Dict attributes;
};

// Values that are nested deeper are refused.
inline constexpr int kMaxValueDepth = 200;

// A list that counts against no budget: for values from outside.
Value MakeList(std::vector<Value> items);

// How deep lists and mappings are nested in it; a number has 0.
int DepthOf(const Value& value);
// "a string", "a list", for messages.
std::string KindOf(const Value& value);
// Python's bool().
bool IsTrue(const Value& value);
// An argument that is not given is not true.
inline bool IsTrue(const std::optional<Value>& value) { return value && IsTrue(*value); }
// Whether it is a number or a boolean that fits 64 bits; then *number has it.
bool AsInteger(const Value& value, int64_t* number);
// The same for any number, as Python's float().
bool AsDouble(const Value& value, double* number);

}  // namespace wideload::jinja
