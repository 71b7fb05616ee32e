#include "config/option_table.h"

#include <algorithm>
#include <type_traits>

#include "base/error.h"

namespace wideload::config {
namespace {

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

// T, or what an optional T holds.
template <class T>
struct ValueOf {
  using Type = T;
};
template <class T>
struct ValueOf<std::optional<T>> {
  using Type = T;
};

std::string Joined(std::string_view list, std::string_view joint) {
  std::string text;
  for (const std::string_view word : CommaWords(list))
    text += fmt::format("{}{}", text.empty() ? "" : joint, word);
  return text;
}

template <class T>
T ParseValue(const OptionRow& row, std::string_view name, std::string_view text) {
  if constexpr (std::is_same_v<T, bool>) {
    if (text != "true" && text != "false")
      Throw(ErrorKind::kInvalid, "{} is {}; allowed: true, false", name, text);
    return text == "true";
  } else if constexpr (std::is_same_v<T, std::string>) {
    const std::vector<std::string_view> choices = CommaWords(row.choices);
    if (!choices.empty() && std::ranges::find(choices, text) == choices.end())
      Throw(ErrorKind::kInvalid, "{} is {}; allowed: {}", name, text, Joined(row.choices, ", "));
    return std::string(text);
  } else {
    return ParseNumber<T>(name, text, row.limits);
  }
}

template <class T>
std::string KindOf(const OptionRow& row) {
  using Value = typename ValueOf<T>::Type;
  if constexpr (std::is_same_v<Value, bool>) {
    return "";
  } else if constexpr (std::is_same_v<Value, std::string>) {
    return row.choices.empty() ? std::string(row.placeholder) : Joined(row.choices, "|");
  } else {
    return NumberKind<Value>(row.limits);
  }
}

}  // namespace

std::vector<std::string_view> CommaWords(std::string_view list) {
  std::vector<std::string_view> words;
  while (!list.empty()) {
    const size_t end = std::min(list.find(','), list.size());
    words.push_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return words;
}

const OptionRow& FindOption(std::string_view name) {
  for (const OptionRow& row : OptionTable())
    for (const std::string_view spelling : Spellings(row))
      if (spelling == name) return row;
  WIDELOAD_CHECK(false, "{} is no option of the table", name);
}

std::vector<std::string_view> Spellings(const OptionRow& row) { return CommaWords(row.names); }

std::vector<std::string> OffSpellings(const OptionRow& row) {
  std::vector<std::string> off;
  if (!ValueKind(row).empty() || DefaultText(row) != "true") return off;
  for (const std::string_view spelling : Spellings(row))
    off.push_back(fmt::format("--no-{}", spelling.substr(2)));
  return off;
}

std::string_view LongName(const OptionRow& row) {
  for (const std::string_view spelling : Spellings(row))
    if (spelling.starts_with("--")) return spelling;
  WIDELOAD_CHECK(false, "{}: an option has a long name", std::string_view(row.names));
}

std::string_view GroupTitle(Group group) {
  switch (group) {
    case Group::kModel:
      return "Model";
    case Group::kLayout:
      return "Layout";
    case Group::kStatistics:
      return "Statistics";
    case Group::kSampling:
      return "Sampling";
    case Group::kOutput:
      return "Output";
  }
  WIDELOAD_CHECK(false, "no group {}", static_cast<int>(group));
}

std::string ValueKind(const OptionRow& row) {
  return std::visit([&]<class T, class F>(T F::*) { return KindOf<T>(row); },
                    static_cast<const Member&>(row.member));
}

template <class Flags>
bool IsOptionOf(const OptionRow& row) {
  return std::visit([]<class T, class F>(T F::*) { return std::is_same_v<F, Flags>; },
                    static_cast<const Member&>(row.member));
}

template <class Flags>
void SetOption(const OptionRow& row, std::string_view name, std::string_view text, Flags& flags) {
  const auto set = [&]<class T, class F>(T F::*member) {
    if constexpr (std::is_same_v<F, Flags>)
      flags.*member = ParseValue<typename ValueOf<T>::Type>(row, name, text);
    else
      WIDELOAD_CHECK(false, "{} is an option of another struct", name);
  };
  std::visit(set, static_cast<const Member&>(row.member));
}

template <class Flags>
std::string ValueText(const OptionRow& row, const Flags& flags) {
  const auto text = [&]<class T, class F>(T F::*member) -> std::string {
    if constexpr (!std::is_same_v<F, Flags>)
      WIDELOAD_CHECK(false, "{} is an option of another struct", LongName(row));
    else if constexpr (IsOptional<T>::value)
      return flags.*member ? fmt::format("{}", *(flags.*member)) : "";
    else
      return fmt::format("{}", flags.*member);
  };
  return std::visit(text, static_cast<const Member&>(row.member));
}

std::string DefaultText(const OptionRow& row) {
  if (!row.default_text.empty()) return std::string(row.default_text);
  return IsOptionOf<EngineFlags>(row) ? ValueText(row, EngineFlags())
                                      : ValueText(row, SamplingFlags());
}

template bool IsOptionOf<EngineFlags>(const OptionRow&);
template bool IsOptionOf<SamplingFlags>(const OptionRow&);
template void SetOption(const OptionRow&, std::string_view, std::string_view, EngineFlags&);
template void SetOption(const OptionRow&, std::string_view, std::string_view, SamplingFlags&);
template std::string ValueText(const OptionRow&, const EngineFlags&);
template std::string ValueText(const OptionRow&, const SamplingFlags&);

}  // namespace wideload::config
