#include "tokenizer/template_value.h"

#include <algorithm>
#include <optional>

namespace wideload::tokenizer {
namespace {

std::optional<int64_t> AsNumber(const TemplateValue& value) {
  if (const bool* boolean = value.As<bool>()) return *boolean ? 1 : 0;
  if (const int64_t* number = value.As<int64_t>()) return *number;
  return std::nullopt;
}

}  // namespace

std::string KindOf(const TemplateValue& value) {
  if (const auto* undefined = value.As<TemplateUndefined>())
    return "undefined (" + undefined->name + ")";
  if (value.As<TemplateNone>()) return "none";
  if (value.As<bool>()) return "a boolean";
  if (value.As<int64_t>()) return "an integer";
  if (value.As<MarkedString>()) return "a string";
  return value.List() ? "a list" : "a mapping";
}

bool IsTrue(const TemplateValue& value) {
  if (const auto number = AsNumber(value)) return *number != 0;
  if (const auto* string = value.As<MarkedString>()) return !string->text.empty();
  if (const TemplateList* list = value.List()) return !list->empty();
  if (const TemplateMap* map = value.Map()) return !map->empty();
  return false;
}

bool AreEqual(const TemplateValue& a, const TemplateValue& b) {
  if (const auto x = AsNumber(a)) return x == AsNumber(b);
  if (a.value.index() != b.value.index()) return false;
  if (const auto* string = a.As<MarkedString>()) return string->text == b.As<MarkedString>()->text;
  if (a.List())
    return std::equal(a.List()->begin(), a.List()->end(), b.List()->begin(), b.List()->end(),
                      AreEqual);
  if (a.Map())
    return std::equal(a.Map()->begin(), a.Map()->end(), b.Map()->begin(), b.Map()->end(),
                      [](const auto& x, const auto& y) {
                        return x.first == y.first && AreEqual(x.second, y.second);
                      });
  return true;
}

}  // namespace wideload::tokenizer
