// The options of the engine and of sampling: one table, one row each. Everything that knows options
// reads it: the command line and its help, the agreement of ranks, docs/configuration.md. Pure.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/flags.h"
#include "config/number.h"

namespace wideload::config {

// Where the help and the page list an option.
enum class Group { kModel, kLayout, kStatistics, kSampling, kOutput };

// What ranks that are processes, each with flags of its own, must have alike.
enum class Agreement {
  kAlike,       // the value
  kAlikeFile,   // what the file says that the value names, or the value if it names none
  kOwn,         // nothing: a rank may have a value of its own
  kLeaderOnly,  // nothing: only rank 0 looks at it
  kElsewhere    // what it leads to is compared, not the value itself
};

// The member that an option sets. A member of another type or struct: add it here.
using Member =
    std::variant<bool EngineFlags::*, int32_t EngineFlags::*, int64_t EngineFlags::*,
                 double EngineFlags::*, std::string EngineFlags::*, bool SamplingFlags::*,
                 uint64_t SamplingFlags::*, std::optional<int32_t> SamplingFlags::*,
                 std::optional<int64_t> SamplingFlags::*, std::optional<double> SamplingFlags::*>;

// A field that every row must state: without it the row does not compile.
template <class T>
class Stated {
 public:
  template <std::convertible_to<T> U>
  constexpr Stated(U value) : value_(value) {}            // NOLINT(google-explicit-constructor)
  constexpr operator const T&() const { return value_; }  // NOLINT(google-explicit-constructor)

 private:
  T value_;
};

// One option.
struct OptionRow {
  // By commas, dashed, the one that messages use first of the long ones: "-m,--model". The command
  // line takes long ones with underscores, too.
  Stated<std::string_view> names;
  Stated<Member> member;
  Stated<Group> group;
  Stated<Agreement> agreement;
  Limits limits = {};             // of a number
  std::string_view choices = "";  // of a text, by commas; empty: any
  // What stands for the value of a text in the help; for numbers and choices it follows.
  std::string_view placeholder = "TEXT";
  // What an option that is not given means, when that is not the member's default value.
  std::string_view default_text = "";
  // Of the same setting in TensorRT-LLM's LLM-API options, or in its SamplingParams; "" if it has
  // none.
  std::string_view trtllm_key = "";
  bool is_trtllm_fraction = false;  // of a text: under that key it is a number above 0 and below 1
  bool is_list = false;             // of a text: under that key it may be a list
  bool is_flag_only = false;        // a configuration file cannot set it
  Stated<std::string_view> help;
};

// All rows, group by group.
std::span<const OptionRow> OptionTable();

// The words of a list by commas.
std::vector<std::string_view> CommaWords(std::string_view list);

// The row with this spelling, dashed. Ends the process when there is none.
const OptionRow& FindOption(std::string_view name);

// All spellings; the first long one: "--model".
std::vector<std::string_view> Spellings(const OptionRow& row);
// Of a bool that is on by default: the spellings that switch it off, "--no-NAME"; else none.
std::vector<std::string> OffSpellings(const OptionRow& row);
// The long name that messages use, with its dashes.
std::string_view LongName(const OptionRow& row);

// Heading of a group in --help and docs.
std::string_view GroupTitle(Group group);

// What a value can be, in short, for the help and the page: "INT: 1 to 1024", "auto|avx2"; "" of a
// bool.
std::string ValueKind(const OptionRow& row);

// Flags: EngineFlags or SamplingFlags.
template <class Flags>
bool IsOptionOf(const OptionRow& row);

// Sets the row's member to what `text` says; the row is one of Flags. `name` is what the user
// called the option: a flag, or a key with its file. Errors: kInvalid "`name` is `text`; allowed:
// ...".
template <class Flags>
void SetOption(const OptionRow& row, std::string_view name, std::string_view text, Flags& flags);

// The text that SetOption would make the member's value of; "" of an optional that is empty. The
// row is one of Flags.
template <class Flags>
std::string ValueText(const OptionRow& row, const Flags& flags);

// What the option means when it is not given: default_text, else the member's default value.
std::string DefaultText(const OptionRow& row);

}  // namespace wideload::config
