// How this process was started: alone, or as one of several by mpirun or srun. Pure.
#pragma once

#include <functional>

namespace wideload::comm {

enum class Launch {
  kAlone,
  kMpi,             // by mpirun, mpiexec, or srun with a PMI: MPI can meet the others
  kSlurmWithoutPmi  // srun started several tasks that MPI cannot bring together
};

// `variable` returns the value of an environment variable or null (std::getenv).
Launch DetectLaunch(const std::function<const char*(const char*)>& variable);

}  // namespace wideload::comm
