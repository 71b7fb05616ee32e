// Filters of lists and mappings. Source: jinja2 3.1, filters.py.
#include <algorithm>

#include "jinja/ast.h"
#include "jinja/filters.h"
#include "jinja/runtime.h"
#include "jinja/text_functions.h"

namespace wideload::jinja {
namespace {

using Bound = const BoundArguments&;
using SequenceKind = Sequence::Kind;

bool IsGiven(const std::optional<Value>& value) { return value && !value->IsNone(); }

Value Length(Runtime& runtime, Bound a) {
  const std::optional<int64_t> length = runtime.Length(*a[0]);
  if (!length) runtime.Refuse("length of " + KindOf(*a[0]));
  return {*length};
}

Value First(Runtime& runtime, Bound a) {
  const Sequence* sequence = a[0]->Seq();
  if (sequence && sequence->kind == SequenceKind::kGenerator) {
    const Value* next = Runtime::NextOf(*sequence);
    return next ? *next : Value::Missing("no first item");
  }
  if (sequence && !sequence->items.empty()) return sequence->items[0];
  const std::vector<Value> items = runtime.Items(*a[0]);
  return items.empty() ? Value::Missing("no first item") : items[0];
}

Value Last(Runtime& runtime, Bound a) {
  const Sequence* sequence = a[0]->Seq();
  if (sequence && sequence->kind == SequenceKind::kGenerator) runtime.Refuse("last of a generator");

  if (sequence && !sequence->items.empty()) return sequence->items.back();
  const std::vector<Value> items = runtime.Items(*a[0]);
  return items.empty() ? Value::Missing("no last item") : items.back();
}

Value Items(Runtime& runtime, Bound a) {
  return runtime.Generator([&](std::vector<Value>& items) {
    if (a[0]->IsUndefined()) return;
    const Dict* dict = a[0]->Map();
    if (dict == nullptr) runtime.Refuse("items of " + KindOf(*a[0]));
    for (const Dict::Entry& entry : dict->entries())
      items.push_back(runtime.List({entry.key, entry.value}, SequenceKind::kTuple));
  });
}

Value Join(Runtime& runtime, Bound a) {
  std::vector<Value> items = runtime.Items(*a[0]);
  if (IsGiven(a[2])) {
    const AttributePath path(runtime, *a[2]);
    for (Value& item : items) item = path.Of(runtime, item);
  }
  const Value separator = a[1] ? runtime.Str(*a[1]) : Value::Text("", false);
  return Joined(runtime, *separator.Str(), items);
}

Value Default(Runtime&, Bound a) {
  const bool is_missing = a[0]->IsUndefined() || (IsTrue(a[2]) && !IsTrue(*a[0]));
  return is_missing ? a[1].value_or(Value::Text("", false)) : *a[0];
}

Value DictSort(Runtime& runtime, Bound a) {
  const Dict* dict = a[0]->Map();
  if (dict == nullptr) runtime.Refuse("dictsort of " + KindOf(*a[0]));
  const std::string by = a[2] ? runtime.Characters(*a[2], "by").text() : "key";
  if (by != "key" && by != "value") runtime.Refuse("by of dictsort; it must be key or value");
  std::vector<Value> items;
  for (const Dict::Entry& entry : dict->entries())
    items.push_back(runtime.List({entry.key, entry.value}, SequenceKind::kTuple));
  const size_t part = by == "key" ? 0 : 1;
  SortBy(runtime, items, IsTrue(a[3]), [&](const Value& item) {
    const Value& key = item.Seq()->items[part];
    return IsTrue(a[1]) ? key : IgnoringCase(runtime, key);
  });
  return runtime.List(std::move(items));
}

// The value by which sort, unique, min, max and groupby compare an item.
std::function<Value(const Value&)> KeyOf(Runtime& runtime, const std::optional<Value>& attribute,
                                         bool is_case_sensitive) {
  return [&runtime, is_case_sensitive,
          path = AttributePath(runtime, attribute.value_or(Value{None{}}))](const Value& item) {
    const Value key = path.Of(runtime, item);
    return is_case_sensitive ? key : IgnoringCase(runtime, key);
  };
}

Value Sort(Runtime& runtime, Bound a) {
  std::vector<Value> items = runtime.Items(*a[0]);
  std::vector<AttributePath> paths;
  if (IsGiven(a[3]) && a[3]->Str()) {
    const MarkedText comma(",", false);
    for (const Value& part : Split(runtime, *a[3]->Str(), &comma, -1))
      paths.emplace_back(runtime, part);
  } else {
    paths.emplace_back(runtime, a[3].value_or(Value{None{}}));
  }
  SortBy(runtime, items, IsTrue(a[1]), [&](const Value& item) {
    std::vector<Value> keys;
    for (const AttributePath& path : paths) {
      const Value key = path.Of(runtime, item);
      keys.push_back(IsTrue(a[2]) ? key : IgnoringCase(runtime, key));
    }
    return runtime.List(std::move(keys));
  });
  return runtime.List(std::move(items));
}

Value Unique(Runtime& runtime, Bound a) {
  return runtime.Generator([&](std::vector<Value>& items) {
    const auto key_of = KeyOf(runtime, a[2], IsTrue(a[1]));
    Dict seen;
    for (const Value& item : runtime.Items(*a[0])) {
      const Value key = key_of(item);
      if (seen.Find(key) != nullptr) continue;
      runtime.SetKey(seen, key, Value{None{}});
      items.push_back(item);
    }
  });
}

Value Extreme(Runtime& runtime, Bound a, int sign) {
  const std::vector<Value> items = runtime.Items(*a[0]);
  if (items.empty()) return Value::Missing("no item");
  const auto key_of = KeyOf(runtime, a[2], IsTrue(a[1]));
  size_t best = 0;
  Value best_key = key_of(items[0]);
  for (size_t i = 1; i < items.size(); ++i) {
    Value key = key_of(items[i]);
    if (runtime.Compare(key, best_key) * sign <= 0) continue;
    best = i;
    best_key = std::move(key);
  }
  return items[best];
}

Value GroupBy(Runtime& runtime, Bound a) {
  std::vector<Value> items = runtime.Items(*a[0]);
  const AttributePath path(runtime, *a[1]);
  const auto value_of = [&](const Value& item) {
    Value value = path.Of(runtime, item);
    return value.IsUndefined() && IsGiven(a[2]) ? *a[2] : value;
  };
  const auto key_of = [&](const Value& item) {
    return IsTrue(a[3]) ? value_of(item) : IgnoringCase(runtime, value_of(item));
  };
  SortBy(runtime, items, false, key_of);
  std::vector<Value> groups;
  for (size_t begin = 0; begin < items.size();) {
    const Value key = key_of(items[begin]);
    size_t end = begin + 1;
    while (end < items.size() && runtime.AreEqual(key_of(items[end]), key)) ++end;
    std::vector<Value> members(items.begin() + static_cast<std::ptrdiff_t>(begin),
                               items.begin() + static_cast<std::ptrdiff_t>(end));
    runtime.Work(sizeof(Sequence) + 2 * sizeof(Value));
    auto group = std::make_shared<Sequence>();
    group->kind = SequenceKind::kTuple;
    group->is_group = true;
    group->items = {value_of(items[begin]), runtime.List(std::move(members))};
    group->depth = std::max(DepthOf(group->items[0]), DepthOf(group->items[1])) + 1;
    groups.push_back({std::shared_ptr<const Sequence>(std::move(group))});
    begin = end;
  }
  return runtime.List(std::move(groups));
}

Value Sum(Runtime& runtime, Bound a) {
  Value sum = a[2].value_or(Value{int64_t{0}});
  if (sum.Str()) runtime.Refuse("a sum of strings");
  std::optional<AttributePath> path;
  if (IsGiven(a[1])) path.emplace(runtime, *a[1]);
  for (const Value& item : runtime.Items(*a[0]))
    sum = runtime.Arithmetic(Operator::kAdd, sum, path ? path->Of(runtime, item) : item);
  return sum;
}

Value Reverse(Runtime& runtime, Bound a) {
  if (a[0]->Str()) {
    const Value none{None{}};
    return runtime.Slice(*a[0], {none, none, Value{int64_t{-1}}});
  }
  const Sequence* sequence = a[0]->Seq();
  // Python reverses these lazily, a generator by way of a list.
  const bool is_lazy = a[0]->Map() || a[0]->IsUndefined() ||
                       (sequence && sequence->kind != SequenceKind::kGenerator);
  std::vector<Value> items = runtime.Items(*a[0]);
  std::reverse(items.begin(), items.end());
  return runtime.List(std::move(items), is_lazy ? SequenceKind::kGenerator : SequenceKind::kList);
}

Value Batch(Runtime& runtime, Bound a) {
  return runtime.Generator([&](std::vector<Value>& batches) {
    const int64_t size = runtime.Integer(*a[1], "linecount");
    std::vector<Value> batch;
    for (const Value& item : runtime.Items(*a[0])) {
      if (static_cast<int64_t>(batch.size()) == size)
        batches.push_back(runtime.List(std::exchange(batch, {})));
      batch.push_back(item);
    }
    if (!batch.empty() && IsGiven(a[2]) && static_cast<int64_t>(batch.size()) < size) {
      runtime.CheckRoom(static_cast<size_t>(size) * sizeof(Value));
      batch.resize(static_cast<size_t>(size), *a[2]);
    }
    if (!batch.empty()) batches.push_back(runtime.List(std::move(batch)));
  });
}

Value SliceFilter(Runtime& runtime, Bound a) {
  return runtime.Generator([&](std::vector<Value>& parts) {
    const std::vector<Value> items = runtime.Items(*a[0]);
    const int64_t slices = runtime.Integer(*a[1], "slices");
    if (slices == 0) runtime.Refuse("slice into 0 parts");
    const auto size = static_cast<int64_t>(items.size());
    auto begin = items.begin();
    for (int64_t i = 0; i < slices; ++i) {
      runtime.Step();
      const bool has_extra = i < size % slices;
      const auto end = begin + (size / slices + (has_extra ? 1 : 0));
      std::vector<Value> part(begin, end);
      if (IsGiven(a[2]) && !has_extra) part.push_back(*a[2]);
      parts.push_back(runtime.List(std::move(part)));
      begin = end;
    }
  });
}

}  // namespace

Value IgnoringCase(Runtime& runtime, const Value& value) {
  return value.Str() ? Lowercase(runtime, value) : value;
}

void SortBy(Runtime& runtime, std::vector<Value>& items, bool is_reversed,
            const std::function<Value(const Value&)>& key) {
  std::vector<std::pair<Value, Value>> keyed;
  runtime.Work(items.size() * sizeof(keyed[0]));
  for (Value& item : items) {
    Value of_item = key(item);
    keyed.emplace_back(std::move(of_item), std::move(item));
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    const int order = runtime.Compare(a.first, b.first);
    return is_reversed ? order > 0 : order < 0;
  });
  for (size_t i = 0; i < items.size(); ++i) items[i] = std::move(keyed[i].second);
}

AttributePath::AttributePath(Runtime& runtime, const Value& attribute) {
  if (attribute.IsNone()) return;
  const MarkedText* text = attribute.Str();
  if (text == nullptr) {
    parts_.push_back(attribute);
    return;
  }
  const MarkedText dot(".", false);
  for (Value& part : Split(runtime, *text, &dot, -1)) {
    const std::string& name = part.Str()->text();
    const bool is_index = !name.empty() && name.size() < 10 &&
                          name.find_first_not_of("0123456789") == std::string::npos;
    parts_.push_back(is_index ? Value{static_cast<int64_t>(std::stol(name))} : std::move(part));
  }
}

Value AttributePath::Of(Runtime& runtime, const Value& item) const {
  Value value = item;
  for (const Value& part : parts_) value = runtime.Item(value, part);
  return value;
}

std::span<const Builtin> ListFilters() {
  static const std::vector<Builtin> kFilters = {
      {"batch", {"value", "linecount", "fill_with"}, 2, Batch},
      {"count", {"value"}, 1, Length},
      {"d", {"value", "default_value", "boolean"}, 1, Default},
      {"default", {"value", "default_value", "boolean"}, 1, Default},
      {"dictsort", {"value", "case_sensitive", "by", "reverse"}, 1, DictSort},
      {"first", {"value"}, 1, First},
      {"groupby", {"value", "attribute", "default", "case_sensitive"}, 2, GroupBy},
      {"items", {"value"}, 1, Items},
      {"join", {"value", "d", "attribute"}, 1, Join},
      {"last", {"value"}, 1, Last},
      {"length", {"value"}, 1, Length},
      {"list", {"value"}, 1, [](Runtime& r, Bound a) { return r.List(r.Items(*a[0])); }},
      {"max",
       {"value", "case_sensitive", "attribute"},
       1,
       [](Runtime& r, Bound a) { return Extreme(r, a, 1); }},
      {"min",
       {"value", "case_sensitive", "attribute"},
       1,
       [](Runtime& r, Bound a) { return Extreme(r, a, -1); }},
      {"reverse", {"value"}, 1, Reverse},
      {"slice", {"value", "slices", "fill_with"}, 2, SliceFilter},
      {"sort", {"value", "reverse", "case_sensitive", "attribute"}, 1, Sort},
      {"sum", {"value", "attribute", "start"}, 1, Sum},
      {"unique", {"value", "case_sensitive", "attribute"}, 1, Unique},
  };
  return kFilters;
}

}  // namespace wideload::jinja
