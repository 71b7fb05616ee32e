#include "config/option_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "compute/exec.h"
#include "config/option_page.h"
#include "eplb/split/slot_chooser.h"
#include "runtime/request.h"

namespace wideload::config {
namespace {

using ::testing::HasSubstr;

// A text that the row allows and that is not the default.
std::string OtherValue(const OptionRow& row) {
  if (ValueKind(row).empty()) return DefaultText(row) == "true" ? "false" : "true";
  if (!row.choices.empty()) return std::string(row.choices.substr(row.choices.rfind(',') + 1));
  if (ValueKind(row) == row.placeholder) return "other";
  return ValueKind(row).starts_with("FLOAT") ? "0.5" : "1";
}

template <class Flags>
void ExpectEachRowSetsAMemberOfItsOwn() {
  for (const OptionRow& row : OptionTable()) {
    if (!IsOptionOf<Flags>(row)) continue;
    Flags flags;
    SetOption(row, "here", OtherValue(row), flags);
    for (const OptionRow& other : OptionTable()) {
      if (!IsOptionOf<Flags>(other)) continue;
      const bool is_same = ValueText(other, flags) == ValueText(other, Flags());
      EXPECT_EQ(is_same, LongName(other) != LongName(row)) << LongName(row) << LongName(other);
    }
    EXPECT_EQ(ValueText(row, flags), OtherValue(row)) << LongName(row);
  }
}

TEST(OptionTable, EachRowSetsAMemberOfItsOwn) {
  ExpectEachRowSetsAMemberOfItsOwn<EngineFlags>();
  ExpectEachRowSetsAMemberOfItsOwn<SamplingFlags>();
}

TEST(OptionTable, SpellingsAndKeysAreUnique) {
  std::set<std::string_view> spellings, keys;
  for (const OptionRow& row : OptionTable()) {
    for (const std::string_view spelling : Spellings(row)) {
      EXPECT_TRUE(spellings.insert(spelling).second) << spelling;
      EXPECT_TRUE(spelling.starts_with("-") && spelling.find('_') == std::string_view::npos);
      EXPECT_EQ(&FindOption(spelling), &row);
    }
    const bool is_new = row.trtllm_key.empty() || keys.insert(row.trtllm_key).second;
    EXPECT_TRUE(is_new) << row.trtllm_key;
  }
}

TEST(OptionTable, WhatIsOnByDefaultHasSpellingsThatSwitchItOff) {
  EXPECT_EQ(OffSpellings(FindOption("--enable-prefix-caching")),
            (std::vector<std::string>{"--no-enable-prefix-caching", "--no-enable-block-reuse"}));
  EXPECT_TRUE(OffSpellings(FindOption("--check-weights")).empty());
  EXPECT_TRUE(OffSpellings(FindOption("--max-num-tokens")).empty());
}

TEST(OptionTable, GroupsAreNotTornApart) {
  std::set<Group> closed;
  Group group = Group::kModel;
  for (const OptionRow& row : OptionTable()) {
    EXPECT_FALSE(closed.contains(row.group)) << LongName(row);
    if (row.group != group) closed.insert(group);
    group = row.group;
  }
}

TEST(OptionTable, ChoicesAreWhatTheModulesKnow) {
  const std::string kernels(FindOption("--kernels").choices);
  EXPECT_EQ(std::count(kernels.begin(), kernels.end(), ','), 5);  // auto, and five sets
  for (int set = 0; set < 5; ++set)
    EXPECT_THAT(kernels, HasSubstr(compute::KernelSetName(static_cast<compute::KernelSet>(set))));
  EngineFlags flags;
  for (const char* split : {"optimal", "round_robin", "first"}) {
    eplb::ParseSplitMode(split);
    SetOption(FindOption("--split"), "--split", split, flags);
  }
}

TEST(OptionTable, MessagesNameWhatTheUserWroteFoundAndAllowed) {
  EngineFlags flags;
  const auto refusal = [&](std::string_view option, std::string_view name, std::string_view text) {
    try {
      SetOption(FindOption(option), name, text, flags);
      return std::string();
    } catch (const Error& e) {
      return std::string(e.what());
    }
  };
  EXPECT_EQ(refusal("--ep", "a.yaml: moe_expert_parallel_size", "0"),
            "a.yaml: moe_expert_parallel_size is 0; allowed: 1 to 1024");
  EXPECT_EQ(refusal("--split", "--split", "fair"),
            "--split is fair; allowed: optimal, round_robin, first");
  EXPECT_EQ(refusal("--check-weights", "check_weights", "maybe"),
            "check_weights is maybe; allowed: true, false");
  EXPECT_EQ(flags.ep, 0);
}

// What the engine checks of every request, whoever sends it, and the table's limits are the same.
TEST(OptionTable, LimitsOfSamplingAreThoseOfRequests) {
  const std::map<std::string_view, double runtime::SamplingParams::*> fields = {
      {"--temperature", &runtime::SamplingParams::temperature},
      {"--top-p", &runtime::SamplingParams::top_p},
      {"--min-p", &runtime::SamplingParams::min_p},
      {"--repetition-penalty", &runtime::SamplingParams::repetition_penalty},
      {"--presence-penalty", &runtime::SamplingParams::presence_penalty},
      {"--frequency-penalty", &runtime::SamplingParams::frequency_penalty}};
  for (const auto& [name, field] : fields) {
    const OptionRow& row = FindOption(name);
    for (const double end : {row.limits.min, row.limits.max})
      for (const double value : {std::nextafter(end, -1e9), end, std::nextafter(end, 1e9)}) {
        runtime::SamplingParams params;
        params.*field = value;
        const bool is_allowed = runtime::InvalidField(params, 100).empty();
        SamplingFlags flags;
        const auto set = [&] { SetOption(row, name, fmt::format("{}", value), flags); };
        if (is_allowed) {
          EXPECT_NO_THROW(set()) << name << " " << value;
        } else {
          EXPECT_THROW(set(), Error) << name << " " << value;
        }
      }
  }
}

TEST(OptionPage, HasALineForEveryOption) {
  const std::string page = OptionPage();
  for (const OptionRow& row : OptionTable())
    EXPECT_THAT(page, HasSubstr(fmt::format("`{}`", LongName(row))));
  EXPECT_THAT(page, HasSubstr("| `--ep` `--ep-size` `--moe-ep` | INT: 1 to 1024 |"));
  EXPECT_THAT(page, HasSubstr("| `--split` | optimal\\|round_robin\\|first | optimal | alike |"));
}

}  // namespace
}  // namespace wideload::config
