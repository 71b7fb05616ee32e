// Values of the chat template interpreter. Strings remember which bytes a user wrote.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace wideload::tokenizer {

// `is_plain` has one byte per byte of `text`: 1 where it comes from a message.
struct MarkedString {
  std::string text;
  std::string is_plain;

  static MarkedString FromTemplate(std::string_view text) {
    return {std::string(text), std::string(text.size(), '\0')};
  }
  static MarkedString FromMessage(std::string_view text) {
    return {std::string(text), std::string(text.size(), '\1')};
  }
  void Append(const MarkedString& other) {
    text += other.text;
    is_plain += other.is_plain;
  }
  MarkedString Slice(size_t begin, size_t end) const {
    return {text.substr(begin, end - begin), is_plain.substr(begin, end - begin)};
  }
};

struct TemplateValue;
using TemplateList = std::vector<TemplateValue>;
using TemplateMap = std::map<std::string, TemplateValue, std::less<>>;

struct TemplateUndefined {
  std::string name;
};
struct TemplateNone {};

// Lists and maps are shared by the values that name them; they never change once made.
struct TemplateValue {
  std::variant<TemplateUndefined, TemplateNone, bool, int64_t, MarkedString,
               std::shared_ptr<const TemplateList>, std::shared_ptr<const TemplateMap>>
      value;

  template <class T>
  const T* As() const {
    return std::get_if<T>(&value);
  }
  const TemplateList* List() const {
    const auto* list = As<std::shared_ptr<const TemplateList>>();
    return list ? list->get() : nullptr;
  }
  const TemplateMap* Map() const {
    const auto* map = As<std::shared_ptr<const TemplateMap>>();
    return map ? map->get() : nullptr;
  }
};

// "a string", "undefined (x)" for messages.
std::string KindOf(const TemplateValue& value);
bool IsTrue(const TemplateValue& value);
// Deep; numbers and booleans compare as numbers.
bool AreEqual(const TemplateValue& a, const TemplateValue& b);

}  // namespace wideload::tokenizer
