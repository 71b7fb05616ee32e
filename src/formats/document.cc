#include "formats/document.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/json.h"

namespace wideload::formats {
namespace {

// Nested arrays of numbers as one array; nothing when they are ragged or hold something else.
bool AppendNumbers(const Json& json, size_t depth, NumberArray& array) {
  if (json.is_number()) {
    if (depth != array.rank()) return false;
    array.of_integers = array.of_integers && json.is_number_integer();
    array.values.push_back(json.get<double>());
    return true;
  }
  if (!json.is_array() || depth >= array.rank() || std::ssize(json) != array.shape[depth])
    return false;
  return std::all_of(json.begin(), json.end(),
                     [&](const Json& item) { return AppendNumbers(item, depth + 1, array); });
}

std::optional<NumberArray> ArrayOfJson(const Json& json) {
  NumberArray array;
  for (const Json* level = &json; level->is_array(); level = &level->front()) {
    array.shape.push_back(std::ssize(*level));
    if (level->empty()) break;
  }
  return AppendNumbers(json, 0, array) ? std::optional(std::move(array)) : std::nullopt;
}

Document DocumentOfJson(const Json& json) {
  if (json.is_null()) return {};
  if (json.is_boolean()) return Document(json.get<bool>());
  if (json.is_string()) return Document(json.get<std::string>());
  if (json.is_object()) {
    Document::Dict dict;
    for (const auto& [key, value] : json.items()) dict.emplace(key, DocumentOfJson(value));
    return Document(std::move(dict));
  }
  if (std::optional<NumberArray> array = ArrayOfJson(json)) return Document(*std::move(array));
  Document::List list;
  for (const Json& item : json) list.push_back(DocumentOfJson(item));
  return Document(std::move(list));
}

}  // namespace

const Document* Document::Find(std::string_view key) const {
  const Dict* dict = AsDict();
  if (dict == nullptr) return nullptr;
  const auto it = dict->find(std::string(key));
  return it == dict->end() || it->second.IsNull() ? nullptr : &it->second;
}

std::string Document::Describe() const {
  if (IsNull()) return "null";
  if (AsDict() != nullptr) return "a dictionary";
  if (const std::string* text = AsText()) return "\"" + text->substr(0, 40) + "\"";
  if (const List* list = AsList()) {
    const std::string first = list->front().Describe();
    for (size_t i = 1; i < list->size(); ++i)
      if (const std::string other = (*list)[i].Describe(); other != first)
        return fmt::format("a list whose entry 0 is {} and entry {} is {}", first, i, other);
    return fmt::format("a list of {} entries, {} each", list->size(), first);
  }
  const NumberArray* array = AsArray();
  if (array == nullptr) return "a truth value";
  return array->rank() == 0 ? fmt::to_string(array->values[0])
                            : "an array " + ShapeText(array->shape);
}

Document ParseJsonDocument(std::string_view text, const std::string& source) {
  return DocumentOfJson(ParseJson(text, source));
}

int64_t IntegerOf(const Document& parent, std::string_view key, int64_t min, int64_t max,
                  const std::string& where) {
  const Document* found = parent.Find(key);
  const NumberArray* array = found ? found->AsArray() : nullptr;
  const double value = array && array->rank() == 0 ? array->values[0] : std::nan("");
  if (!(value >= static_cast<double>(min) && value <= static_cast<double>(max)) ||
      value != std::floor(value))
    Throw(ErrorKind::kInvalid, "{}: {} is {}; it must be an integer in [{}, {}]", where, key,
          found ? found->Describe() : "missing", min, max);
  return static_cast<int64_t>(value);
}

const NumberArray& ArrayOf(const Document& parent, std::string_view key,
                           std::span<const size_t> ranks, std::string_view meaning,
                           const std::string& where) {
  const Document* found = parent.Find(key);
  const NumberArray* array = found ? found->AsArray() : nullptr;
  if (array == nullptr || std::find(ranks.begin(), ranks.end(), array->rank()) == ranks.end())
    Throw(ErrorKind::kInvalid, "{}: {} is {}; it must be numbers {}", where, key,
          found ? found->Describe() : "missing", meaning);
  return *array;
}

}  // namespace wideload::formats
