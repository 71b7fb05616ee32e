#include "comm/mpi/mpi_session.h"

#include <mpi.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>

#include "base/temporary.h"
#include "comm/hosts.h"
#include "comm/mpi/mpi_communicator.h"

namespace wideload::comm {

namespace {

using Clock = std::chrono::steady_clock;

// After a fault: how long those that live may take to come to the end, too.
constexpr std::chrono::seconds kFarewell{2};
// How often this rank looks for the dead without the help of MPI: of this host, and of others.
constexpr std::chrono::milliseconds kLookPace{50};
constexpr int kFarLooks = 5;
// How long after the death of another rank this one should have said so, else the watch does: the
// launcher ends all ranks after a second.
constexpr std::chrono::milliseconds kSilence{400};
// The same for ending the group, else it is stuck.
constexpr std::chrono::milliseconds kStuck{2500};
// The same for its end, which takes kFarewell at most.
constexpr std::chrono::milliseconds kStuckFarewell{3000};
// When MPI fails: how long this rank looks for a dead one, and then stays, so that the others find
// that one dead before this one.
constexpr std::chrono::seconds kSearch{2};
constexpr std::chrono::milliseconds kLinger{1500};

void MeetRanks(MPI_Comm ranks, PeerLives& lives) {
  int rank = 0;
  int size = 1;
  MPI_Comm_rank(ranks, &rank);
  MPI_Comm_size(ranks, &size);
  const PeerLives::Card own = lives.card();
  std::vector<PeerLives::Card> cards(static_cast<size_t>(size));
  if (MPI_Allgather(&own, sizeof(own), MPI_BYTE, cards.data(), sizeof(own), MPI_BYTE, ranks) !=
      MPI_SUCCESS)
    Throw(ErrorKind::kRunFailed, "MPI_Allgather of {} ranks failed", size);
  lives.Meet(rank, cards);
}

}  // namespace

struct MpiSession::State {
  MPI_Comm all = MPI_COMM_WORLD;  // of this part
  int part = -1;
  bool ends_mpi = true;
  int rank = 0;
  int size = 1;
  int local_rank = 0;
  int local_size = 1;
  MpiShared shared;
  std::mutex tell_mutex;  // guards the next two
  std::function<void(const std::string&)> tell;
  bool has_told = false;
  int64_t num_looks = 0;
  std::optional<Clock::time_point> death_seen_at;
  std::optional<Clock::time_point> leaving_seen_at;  // after a death
  std::unique_ptr<Pulse> watch;                      // of the dead
  std::unique_ptr<MpiCommunicator> farewell;         // of all ranks, for the end
  MpiShared others;                                  // of all parts

  void Connect();
  void Divide(std::span<const int32_t> parts);
  void MeetPeers();
  void Look();
  Where WhereItIs();
  std::string DeathOf(int dead);
  void Tell(const std::string& reason);
  [[noreturn]] void GiveUp(const char* reason, std::chrono::milliseconds linger);
};

namespace {

std::atomic<MpiSession::State*> running{nullptr};

}  // namespace

// Of each pair of ranks the lower one speaks first, so that no two open a connection to each other
// at the same time, as collectives make them do. Runs on loaded machines that did not end had
// messages of Open MPI 4.1 about connections ("connect() failed").
void MpiSession::State::Connect() {
  char byte = 0;
  const auto send = [&](int peer) { return MPI_Send(&byte, 1, MPI_CHAR, peer, 0, MPI_COMM_WORLD); };
  const auto receive = [&](int peer) {
    return MPI_Recv(&byte, 1, MPI_CHAR, peer, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  };
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    const bool is_connected = rank < peer
                                  ? send(peer) == MPI_SUCCESS && receive(peer) == MPI_SUCCESS
                                  : receive(peer) == MPI_SUCCESS && send(peer) == MPI_SUCCESS;
    if (!is_connected) Throw(ErrorKind::kRunFailed, "no connection to rank {} by MPI", peer);
  }
}

// Where the sizes do not add up it stays one.
void MpiSession::State::Divide(std::span<const int32_t> parts) {
  if (parts.empty() || std::accumulate(parts.begin(), parts.end(), int64_t{0}) != size) return;
  int end = 0;
  while (rank >= end) end += parts[static_cast<size_t>(++part)];
  if (MPI_Comm_split(MPI_COMM_WORLD, part, rank, &all) != MPI_SUCCESS)
    Throw(ErrorKind::kRunFailed, "MPI_Comm_split of {} ranks failed", size);
  MeetRanks(MPI_COMM_WORLD, others.lives);
  MPI_Comm_set_errhandler(all, MPI_ERRORS_RETURN);
  MPI_Comm_rank(all, &rank);
  MPI_Comm_size(all, &size);
}

// None of the waits that follow could find a rank dead without this.
void MpiSession::State::MeetPeers() {
  MeetRanks(all, shared.lives);
  watch = std::make_unique<Pulse>(kLookPace, [this] { Look(); });
}

void MpiSession::State::Look() {
  const bool is_far_look = num_looks++ % kFarLooks == 0;
  const int dead = is_far_look ? shared.lives.Look() : shared.lives.LookHere();
  if (dead < 0) return;
  const Clock::time_point now = Clock::now();
  if (!death_seen_at) death_seen_at = now;
  if (shared.is_leaving) {
    if (!leaving_seen_at) leaving_seen_at = now;
    if (now - *leaving_seen_at >= kStuckFarewell) GiveUp("", {});
    return;
  }
  if (shared.is_ending || shared.has_failed) return;
  if (now - *death_seen_at >= kSilence) Tell(DeathOf(dead));
  if (now - *death_seen_at >= kStuck) GiveUp("", {});  // by now the others know, too
}

std::string MpiSession::State::DeathOf(int dead) {
  return PeerLost({.rank = rank,
                   .peer = dead,
                   .where = WhereItIs(),
                   .awaited = "messages",
                   .cause = "it is dead"})
      .what();
}

void MpiSession::State::Tell(const std::string& reason) {
  const std::scoped_lock lock(tell_mutex);
  if (std::exchange(has_told, true)) return;
  if (tell)
    tell(reason);
  else
    std::fprintf(stderr, "%s\n", reason.c_str());
  // Not all streams: the one that a thread reads a person's line from is locked.
  std::fflush(stderr);
}

// In an iteration, if any group is or was.
Where MpiSession::State::WhereItIs() {
  const std::scoped_lock lock(shared.mutex);
  for (const Communicator* group : shared.places)
    if (group->where().iteration >= 0) return group->where();
  return shared.last_where;
}

void MpiSession::State::GiveUp(const char* reason, std::chrono::milliseconds linger) {
  static std::atomic_flag is_given_up;
  while (is_given_up.test_and_set()) ::pause();  // another thread does it
  const auto end = Clock::now() + kSearch;
  int dead = shared.lives.FirstDead();
  for (; dead < 0 && Clock::now() < end; dead = shared.lives.FirstDead())
    std::this_thread::sleep_for(kLookPace / 10);  // the watch finds it
  Tell(dead >= 0 ? DeathOf(dead)
                 : fmt::format("rank {}: MPI cannot go on{}{}; no other rank was found dead", rank,
                               *reason == '\0' ? "" : ": ", reason));
  if (!shared.is_leaving) std::this_thread::sleep_for(linger);
  RemoveTemporaries();
  ::_exit(1);
}

[[noreturn]] void EndForMpi(const char* reason) {
  MpiSession::State* const state = running;
  if (state != nullptr) state->GiveUp(reason == nullptr ? "" : reason, kLinger);
  ::_exit(1);
}

std::string MpiVersion() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string version(text.data());
  return version.substr(0, version.find_first_of(",\n"));
}

MpiSession::MpiSession(std::span<const int32_t> parts) : state_(std::make_unique<State>()) {
  // Open MPI writes to sockets of ranks that may have died: that is an error, not the end.
  std::signal(SIGPIPE, SIG_IGN);
  int level = MPI_THREAD_SINGLE;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level);
  if (level < MPI_THREAD_MULTIPLE)
    Throw(ErrorKind::kUnsupported,
          "{} does not let several threads call it (level {}; MPI_THREAD_MULTIPLE is needed)",
          MpiVersion(), level);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &state_->rank);
  MPI_Comm_size(MPI_COMM_WORLD, &state_->size);
  state_->Connect();
  state_->Divide(parts);
  state_->MeetPeers();
  state_->farewell = MakeMpiCommunicator({.deadline = std::chrono::hours(24 * 365)}, size());
  running = state_.get();
  const Hosts hosts = FindHosts(*state_->farewell);
  state_->local_rank = hosts.LocalRank(state_->rank);
  state_->local_size = hosts.LocalSize(state_->rank);
}

// MPI_Finalize would wait for a dead rank without end.
MpiSession::~MpiSession() {
  state_->shared.is_leaving = true;
  try {
    if (!state_->shared.has_failed) state_->farewell->Barrier();
  } catch (const PeerLost&) {
    state_->shared.has_failed = true;
  }
  const bool have_all_come =
      !state_->shared.has_failed || state_->farewell->WaitForTheLiving(kFarewell);
  running = nullptr;
  state_->farewell.reset();
  if (!have_all_come || !state_->ends_mpi) return;
  state_->watch.reset();
  MPI_Finalize();
}

void MpiSession::Fail(const std::string& reason) {
  state_->shared.has_failed = true;
  state_->Tell(reason);
}

void MpiSession::NoteFault() { state_->shared.has_failed = true; }

void MpiSession::AddPlace(const Communicator& group) { state_->shared.AddPlace(group); }
void MpiSession::RemovePlace(const Communicator& group) { state_->shared.RemovePlace(group); }

void MpiSession::OnFailure(std::function<void(const std::string&)> tell) {
  const std::scoped_lock lock(state_->tell_mutex);
  state_->tell = std::move(tell);
}

int MpiSession::rank() const { return state_->rank; }
int MpiSession::size() const { return state_->size; }
int MpiSession::part() const { return state_->part; }
int MpiSession::local_rank() const { return state_->local_rank; }
int MpiSession::local_size() const { return state_->local_size; }

void MpiSession::ForgetOtherParts() { state_->ends_mpi = state_->part < 0; }

std::unique_ptr<Communicator> MpiSession::MeetAllParts() {
  if (state_->part < 0) return nullptr;
  MPI_Comm copy = MPI_COMM_NULL;
  if (MPI_Comm_dup(MPI_COMM_WORLD, &copy) != MPI_SUCCESS)
    Throw(ErrorKind::kRunFailed, "MPI_Comm_dup of all ranks failed");
  return std::make_unique<MpiCommunicator>(
      copy, GroupOptions{.deadline = std::chrono::hours(24 * 365)}, state_->others);
}

std::unique_ptr<Communicator> MpiSession::MakeCommunicator(GroupOptions group, int num_ranks) {
  const int count = num_ranks == 0 ? size() : num_ranks;
  if (count < 1 || count > size())
    Throw(ErrorKind::kInvalid, "a group of {} ranks; allowed: 1 to {}", num_ranks, size());
  if (group.deadline.count() <= 0)
    Throw(ErrorKind::kInvalid, "the deadline of a group is {} ms; it must be positive",
          group.deadline.count());
  // MPI would wait for a dead rank without end; this barrier does not.
  state_->farewell->Barrier();
  return MakeMpiCommunicator(std::move(group), count);
}

std::unique_ptr<MpiCommunicator> MpiSession::MakeMpiCommunicator(GroupOptions group, int count) {
  MPI_Comm members = MPI_COMM_NULL;
  const int color = rank() < count ? 0 : MPI_UNDEFINED;
  if (MPI_Comm_split(state_->all, color, rank(), &members) != MPI_SUCCESS)
    Throw(ErrorKind::kRunFailed, "MPI_Comm_split of {} ranks failed", size());
  if (members == MPI_COMM_NULL) return nullptr;
  return std::make_unique<MpiCommunicator>(members, std::move(group), state_->shared);
}

}  // namespace wideload::comm

// Open MPI calls this function of its own when it cannot go on, and would end the process without a
// word of who is dead; that of the program comes before that of the library. Source:
// ompi/mca/rte/rte.h of Open MPI 4.1. Another MPI has none of this name.
// NOLINTNEXTLINE(readability-identifier-naming)
extern "C" [[noreturn]] void ompi_rte_abort(int /*code*/, char* format, ...) {
  wideload::comm::EndForMpi(format);
}
