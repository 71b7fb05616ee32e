#include "model/weight_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"

namespace wideload::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class WeightStoreTest : public testing::Test {
 protected:
  WeightStoreTest() {
    std::string pattern = "/dev/shm/weight_store_test_XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  ~WeightStoreTest() override { std::filesystem::remove_all(folder_); }

  WeightStore Store(int32_t local_rank, int32_t num_local_ranks, const std::string& job = "job",
                    const std::string& base = "moe_shared") const {
    return {{.base = base,
             .job = job,
             .folder = folder_,
             .local_rank = local_rank,
             .num_local_ranks = num_local_ranks,
             .patience = std::chrono::milliseconds(0)},
            layers_,
            {{100, 64, 200, 10, 70}, {64, 64, 64, 64, 64}}};
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& file : std::filesystem::directory_iterator(folder_))
      names.push_back(file.path().filename());
    std::ranges::sort(names);
    return names;
  }

  std::string folder_;
  std::vector<int32_t> layers_ = {1, 3};
};

TEST_F(WeightStoreTest, NamesItsPartsAsTensorRtLlmDoesWhileRanksMeet) {
  WeightStore a = Store(0, 2);
  WeightStore b = Store(1, 2);
  a.Create();
  b.Create();
  EXPECT_THAT(Files(), ElementsAre("moe_shared_l1_lr0_all", "moe_shared_l1_lr1_all",
                                   "moe_shared_l3_lr0_all", "moe_shared_l3_lr1_all"));
  a.Attach();
  b.Attach();
  a.Unlink();
  b.Unlink();
  EXPECT_THAT(Files(), ElementsAre());
}

// Also with more ranks than experts.
TEST_F(WeightStoreTest, GivesEveryExpertOneReaderAndAllRanksItsBytes) {
  for (const int32_t ranks : {1, 2, 3, 5, 7}) {
    std::vector<WeightStore> stores;
    for (int32_t r = 0; r < ranks; ++r) stores.push_back(Store(r, ranks));
    for (WeightStore& store : stores) store.Create();
    for (WeightStore& store : stores) store.Attach();
    for (WeightStore& store : stores) store.Unlink();
    for (int32_t layer = 0; layer < 2; ++layer)
      for (int32_t e = 0; e < 5; ++e) {
        int num_readers = 0;
        for (WeightStore& store : stores) {
          if (!store.IsOwn(e)) continue;
          ++num_readers;
          std::ranges::fill(store.BytesOf(layer, e), std::byte(1 + layer * 5 + e));
        }
        EXPECT_EQ(num_readers, 1);
      }
    for (const WeightStore& store : stores)
      for (int32_t layer = 0; layer < 2; ++layer)
        for (int32_t e = 0; e < 5; ++e) {
          const auto bytes = store.BytesOf(layer, e);
          EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % 64, 0U);
          EXPECT_TRUE(std::ranges::all_of(
              bytes, [&](std::byte byte) { return byte == std::byte(1 + layer * 5 + e); }));
        }
    EXPECT_EQ(stores[0].num_bytes(), 128 + 64 + 256 + 64 + 128 + 5 * 64);
  }
}

TEST_F(WeightStoreTest, RefusesANameThatAnotherLivingJobUses) {
  WeightStore first = Store(0, 1, "first");
  first.Create();
  WeightStore second = Store(0, 1, "second");
  try {
    second.Create();
    FAIL() << "made";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kResource);
    EXPECT_THAT(error.what(), HasSubstr("in use by the living job 'first'"));
    EXPECT_THAT(error.what(), HasSubstr("--weight-store"));
  }
  Store(0, 1, "second", "other").Create();
  first.Unlink();
  second.Create();
}

TEST_F(WeightStoreTest, RefusesABaseThatIsNoFileName) {
  for (const char* base : {"a/b", "..", "moe shared"})
    EXPECT_THROW(Store(0, 1, "job", base).Create(), Error) << base;
}

}  // namespace
}  // namespace wideload::model
