#include "comm/mpi/launch.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace wideload::comm {
namespace {

Launch Of(const std::map<std::string, std::string>& variables) {
  return DetectLaunch([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(DetectLaunch, SeesOneRankOfMpirunOrSrun) {
  EXPECT_EQ(Of({{"OMPI_COMM_WORLD_RANK", "0"}}), Launch::kMpi);
  EXPECT_EQ(Of({{"PMI_RANK", "3"}}), Launch::kMpi);
  EXPECT_EQ(Of({{"PMIX_RANK", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}}), Launch::kMpi);
}

TEST(DetectLaunch, TakesABatchScriptForAProcessOfItsOwn) {
  EXPECT_EQ(Of({}), Launch::kAlone);
  EXPECT_EQ(Of({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}), Launch::kAlone);
  EXPECT_EQ(Of({{"SLURM_STEP_NUM_TASKS", "1"}}), Launch::kAlone);
}

TEST(DetectLaunch, SeesTasksThatCannotMeet) {
  EXPECT_EQ(Of({{"SLURM_STEP_NUM_TASKS", "8"}}), Launch::kSlurmWithoutPmi);
}

}  // namespace
}  // namespace wideload::comm
