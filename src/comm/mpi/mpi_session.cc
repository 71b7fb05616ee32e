#include "comm/mpi/mpi_session.h"

#include <mpi.h>

#include <array>
#include <chrono>
#include <optional>

#include "comm/hosts.h"
#include "comm/mpi/mpi_communicator.h"

namespace wideload::comm {

namespace {

// After a fault: how long the others may take to come to the end, too.
constexpr std::chrono::seconds kFarewell{2};

}  // namespace

struct MpiSession::State {
  int rank = 0;
  int size = 1;
  int local_rank = 0;
  int local_size = 1;
  bool has_failed = false;                                       // a communicator has lost a peer
  std::optional<std::chrono::steady_clock::time_point> leaving;  // when the end began
  std::unique_ptr<Communicator> farewell;                        // of all ranks, for the end
};

std::string MpiVersion() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string version(text.data());
  return version.substr(0, version.find_first_of(",\n"));
}

MpiSession::MpiSession() : state_(std::make_unique<State>()) {
  int level = MPI_THREAD_SINGLE;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level);
  if (level < MPI_THREAD_MULTIPLE)
    Throw(ErrorKind::kUnsupported,
          "{} does not let several threads call it (level {}; MPI_THREAD_MULTIPLE is needed)",
          MpiVersion(), level);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &state_->rank);
  MPI_Comm_size(MPI_COMM_WORLD, &state_->size);
  GroupOptions patient{.deadline = std::chrono::hours(24 * 365)};
  patient.is_alive = [state = state_.get()](int) {
    return !state->has_failed || !state->leaving ||
           std::chrono::steady_clock::now() - *state->leaving < kFarewell;
  };
  state_->farewell = MakeCommunicator(std::move(patient));
  const Hosts hosts = FindHosts(*state_->farewell);
  state_->local_rank = hosts.LocalRank(state_->rank);
  state_->local_size = hosts.LocalSize(state_->rank);
}

// MPI_Finalize would wait for a dead rank without end.
MpiSession::~MpiSession() {
  state_->leaving = std::chrono::steady_clock::now();
  try {
    state_->farewell->Barrier();
    state_->farewell.reset();
    MPI_Finalize();
  } catch (const PeerLost&) {
    return;
  }
}

int MpiSession::rank() const { return state_->rank; }
int MpiSession::size() const { return state_->size; }
int MpiSession::local_rank() const { return state_->local_rank; }
int MpiSession::local_size() const { return state_->local_size; }

std::unique_ptr<Communicator> MpiSession::MakeCommunicator(GroupOptions group, int num_ranks) {
  const int count = num_ranks == 0 ? size() : num_ranks;
  if (count < 1 || count > size())
    Throw(ErrorKind::kInvalid, "a group of {} ranks; allowed: 1 to {}", num_ranks, size());
  if (group.deadline.count() <= 0)
    Throw(ErrorKind::kInvalid, "the deadline of a group is {} ms; it must be positive",
          group.deadline.count());
  // MPI would wait for a dead rank without end; this barrier does not.
  if (state_->farewell) state_->farewell->Barrier();
  MPI_Comm members = MPI_COMM_NULL;
  const int color = rank() < count ? 0 : MPI_UNDEFINED;
  if (MPI_Comm_split(MPI_COMM_WORLD, color, rank(), &members) != MPI_SUCCESS)
    Throw(ErrorKind::kRunFailed, "MPI_Comm_split of {} ranks failed", size());
  if (members == MPI_COMM_NULL) return nullptr;
  return std::make_unique<MpiCommunicator>(members, std::move(group), &state_->has_failed);
}

}  // namespace wideload::comm
