// Same bits, whatever the layout: a request's logits and tokens do not depend on where its experts
// lie, on the other requests, or on how the work is cut.
#include <gtest/gtest.h>

#include "support/random_layout.h"
#include "support/random_model.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using compute::KernelSet;
using testing_support::Outcome;
using testing_support::TestModel;

struct Family {
  std::string folder;
  int layouts;  // some 300 over all families and kernel sets of a machine with AVX-512
  size_t requests;
};
// Sanitizers slow everything down by an order of magnitude: there a part of the layouts must do.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kShare = 6;
#else
constexpr int kShare = 1;
#endif

std::string RandomFolder() {
  const std::string folder = testing_support::TemporaryFolder("random-20-experts");
  testing_support::WriteRandomModel(folder, 20);
  return folder;
}

std::vector<Family> Families() {
  std::vector<Family> families = {{RandomFolder(), 24, 12},
                                  {testing_support::SourcePath("models/wideload-14m"), 6, 6}};
  for (const std::string& folder : testing_support::TinyModels())
    families.push_back({folder, 6, 8});
  return families;
}

class Layouts : public testing::TestWithParam<KernelSet> {};

TEST_P(Layouts, NeverChangeABit) {
  uint64_t first_seed = 10'000 * static_cast<uint64_t>(GetParam());
  for (const Family& family : Families()) {
    // Other layouts for every family and kernel set: together they meet more combinations.
    first_seed += 1'000;
    const TestModel model = testing_support::LoadTestModel(family.folder, GetParam());
    const std::vector<runtime::Request> requests =
        testing_support::DrawRequests(model, family.requests, 5);
    const std::vector<Outcome> expected = testing_support::RunRequests(
        *model.model, testing_support::TestOptions(model.config, GetParam()), requests);
    for (const Outcome& outcome : expected) ASSERT_EQ(outcome.error, "");
    const int layouts = GetParam() == KernelSet::kReference ? family.layouts / 3 : family.layouts;
    for (int i = 0; i < layouts; i += kShare) {
      const uint64_t seed = first_seed + static_cast<uint64_t>(i);
      const auto layout = testing_support::DrawLayout(model, GetParam(), requests.size(), seed);
      ASSERT_EQ(testing_support::CompareLayout(model, layout, requests, expected), "")
          << family.folder << ", seed " << seed;
    }
  }
}

TEST_P(Layouts, GiveTheSameBitsAloneAsAmongOthers) {
  const TestModel model = testing_support::LoadTestModel(RandomFolder(), GetParam());
  const std::vector<runtime::Request> requests = testing_support::DrawRequests(model, 32, 6);
  const auto options = testing_support::TestOptions(model.config, GetParam());
  const std::vector<Outcome> together =
      testing_support::RunRequests(*model.model, options, requests);
  for (size_t i = 0; i < requests.size(); i += 5)
    EXPECT_EQ(testing_support::RunRequests(*model.model, options, {requests[i]})[0], together[i])
        << i;
}

INSTANTIATE_TEST_SUITE_P(KernelSets, Layouts,
                         testing::ValuesIn(compute::SupportedKernelSets().begin(),
                                           compute::SupportedKernelSets().end()),
                         [](const auto& set) { return std::string(KernelSetName(set.param)); });

}  // namespace
}  // namespace wideload
