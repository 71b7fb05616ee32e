#include "jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "jinja/callable.h"

namespace wideload::jinja {
namespace {

constexpr size_t kIndexFrom = 8;  // fewer keys are compared one by one

// A key's name in the index: equal keys have the same, 1 and 1.0 and true included. The byte FF is
// in no string. Empty for a kind that cannot be a key.
std::string Spelled(const Value& key) {
  if (const MarkedText* text = key.Str()) return text->text();
  if (key.IsNone()) return "\xFFnone";
  if (const BigInteger* big = key.Big()) return "\xFF" + big->digits;
  int64_t integer = 0;
  if (AsInteger(key, &integer)) return fmt::format("\xFF{}", integer);
  const double* number = key.Float();
  if (number == nullptr) return "";
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (std::floor(*number) == *number && std::abs(*number) <= kExact)
    return fmt::format("\xFF{}", static_cast<int64_t>(*number));
  return fmt::format("\xFF{}", *number);
}

bool CanBeKey(const Value& key) {
  int64_t integer = 0;
  return key.Str() || key.IsNone() || key.Big() || AsInteger(key, &integer) || key.Float();
}

}  // namespace

size_t Dict::IndexOf(std::string_view spelled) const {
  if (entries_.size() > kIndexFrom) {
    const auto found = index_->find(std::string(spelled));
    return found == index_->end() ? entries_.size() : found->second;
  }
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    const MarkedText* text = entry.key.Str();
    return text ? text->text() == spelled : Spelled(entry.key) == spelled;
  });
  return static_cast<size_t>(found - entries_.begin());
}

const Value* Dict::Find(std::string_view key) const {
  const size_t index = IndexOf(key);
  return index < entries_.size() ? &entries_[index].value : nullptr;
}

const Value* Dict::Find(const Value& key) const {
  if (const MarkedText* text = key.Str()) return Find(text->text());
  return CanBeKey(key) ? Find(Spelled(key)) : nullptr;
}

bool Dict::Set(Value key, Value value) {
  if (!CanBeKey(key)) return false;
  depth_ = std::max(depth_, DepthOf(value) + 1);
  std::string spelled = Spelled(key);
  const size_t index = IndexOf(spelled);
  if (index < entries_.size()) {
    entries_[index].value = std::move(value);
    return true;
  }
  entries_.push_back({std::move(key), std::move(value)});
  if (entries_.size() <= kIndexFrom) return true;
  if (!index_) {
    index_ = std::make_unique<std::unordered_map<std::string, size_t>>();
    for (size_t i = 0; i + 1 < entries_.size(); ++i) index_->emplace(Spelled(entries_[i].key), i);
  }
  index_->emplace(std::move(spelled), entries_.size() - 1);
  return true;
}

Value MakeList(std::vector<Value> items) {
  auto list = std::make_shared<Sequence>();
  for (const Value& item : items) list->depth = std::max(list->depth, DepthOf(item) + 1);
  list->items = std::move(items);
  return {std::shared_ptr<const Sequence>(std::move(list))};
}

int DepthOf(const Value& value) {
  if (const Sequence* sequence = value.Seq()) return sequence->depth;
  if (const Dict* dict = value.Map()) return dict->depth();
  if (const Callable* callable = value.Function()) return DepthOf(callable->self) + 1;
  if (const auto loop = value.TheLoop()) return loop->depth_of_items + 1;
  return 0;
}

std::string KindOf(const Value& value) {
  static constexpr const char* kSequenceNames[] = {
      "a list", "a tuple", "a range", "dict keys", "dict values", "dict items", "a generator"};
  if (const auto* undefined = std::get_if<Undefined>(&value.data))
    return "undefined (" + (undefined->message ? *undefined->message : std::string()) + ")";
  if (value.IsNone()) return "none";
  if (value.Bool()) return "a boolean";
  if (value.Int() || value.Big()) return "an integer";
  if (value.Float()) return "a float";
  if (value.Str()) return "a string";
  if (const Sequence* sequence = value.Seq())
    return kSequenceNames[static_cast<size_t>(sequence->kind)];
  if (value.Map()) return "a mapping";
  if (value.Space()) return "a namespace";
  return value.Function() ? "a function" : "a loop";
}

bool IsTrue(const Value& value) {
  if (value.IsUndefined() || value.IsNone()) return false;
  if (const bool* boolean = value.Bool()) return *boolean;
  if (const int64_t* integer = value.Int()) return *integer != 0;
  if (const double* number = value.Float()) return *number != 0;
  if (const MarkedText* text = value.Str()) return text->size() > 0;
  if (const Sequence* sequence = value.Seq())
    return sequence->kind == Sequence::Kind::kGenerator || !sequence->items.empty();
  if (const Dict* dict = value.Map()) return !dict->entries().empty();
  return true;
}

bool AsInteger(const Value& value, int64_t* number) {
  if (const int64_t* integer = value.Int())
    *number = *integer;
  else if (const bool* boolean = value.Bool())
    *number = *boolean ? 1 : 0;
  else
    return false;
  return true;
}

bool AsDouble(const Value& value, double* number) {
  int64_t integer = 0;
  if (const double* real = value.Float())
    *number = *real;
  else if (AsInteger(value, &integer))
    *number = static_cast<double>(integer);
  else
    return false;
  return true;
}

}  // namespace wideload::jinja
