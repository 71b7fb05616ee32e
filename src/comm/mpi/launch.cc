#include "comm/mpi/launch.h"

#include <algorithm>
#include <array>
#include <cstdlib>

namespace wideload::comm {

Launch DetectLaunch(const std::function<const char*(const char*)>& variable) {
  // Open MPI's mpirun, PMIx (also srun --mpi=pmix), PMI-1 and PMI-2 (MPICH, srun --mpi=pmi2).
  constexpr std::array kOfRanks = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};
  if (std::any_of(kOfRanks.begin(), kOfRanks.end(),
                  [&](const char* name) { return variable(name) != nullptr; }))
    return Launch::kMpi;
  // A batch script has SLURM's variables, too, but is one task.
  const char* const num_tasks = variable("SLURM_STEP_NUM_TASKS");
  const bool is_one_of_many = num_tasks != nullptr && std::atoi(num_tasks) > 1;
  return is_one_of_many ? Launch::kSlurmWithoutPmi : Launch::kAlone;
}

}  // namespace wideload::comm
