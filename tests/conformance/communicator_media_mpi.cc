// The processes that mpirun started, as the ranks of the conformance suite.
#include "conformance/communicator_media.h"
#include "support/mpi_ranks.h"

namespace wideload::comm {

const std::vector<CommunicatorMedium>& CommunicatorMedia() {
  static const std::vector<CommunicatorMedium> media = {
      {.name = "mpi", .run = RunMpiRanks, .max_ranks = NumMpiRanks()}};
  return media;
}

}  // namespace wideload::comm

int main(int argc, char** argv) { return wideload::RunMpiTests(argc, argv); }
