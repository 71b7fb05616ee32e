#include "comm/mpi/peer_messages.h"

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <thread>
#include <vector>

#include "comm/mpi/mpi_communicator.h"

namespace wideload::comm {
namespace {

constexpr int64_t kSendId = -1;  // receives have ids from 0 on
constexpr std::chrono::microseconds kClosePoll{100};

int MessageCount(size_t num_bytes) {
  WIDELOAD_CHECK(num_bytes <= INT_MAX, "a message of {} bytes", num_bytes);
  return static_cast<int>(num_bytes);
}

}  // namespace

struct PeerMessages::State {
  Communicator* group = nullptr;
  MPI_Comm comm = MPI_COMM_NULL;  // never freed, as MpiCommunicator's for control
  int max_tag = 0;
  bool is_closed = false;
  // Of all messages under way: requests and, at the same places, what they are.
  std::vector<MPI_Request> requests;
  std::vector<int64_t> ids;
  std::vector<int> done;  // places of requests, of one Progress

  void Add(MPI_Request request, int64_t id) {
    requests.push_back(request);
    ids.push_back(id);
    done.resize(requests.size());
  }
};

PeerMessages::PeerMessages(Communicator& group) : state_(std::make_unique<State>()) {
  auto* const mpi = dynamic_cast<MpiCommunicator*>(&group);
  if (mpi == nullptr)
    Throw(ErrorKind::kUnsupported,
          "messages between hosts need ranks that mpirun or srun started; this group is not of "
          "MPI");
  state_->group = &group;
  state_->comm = mpi->Duplicate();
  int* value = nullptr;
  int is_set = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, static_cast<void*>(&value), &is_set);
  state_->max_tag = is_set != 0 ? *value : 32767;  // what every MPI allows
}

PeerMessages::~PeerMessages() { Close(); }

int PeerMessages::max_tag() const { return state_->max_tag; }

// An error means that the peer is gone; who waits for it finds out and names it.
void PeerMessages::Send(int peer, int tag, std::span<const std::byte> bytes) {
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Isend(bytes.data(), MessageCount(bytes.size()), MPI_BYTE, peer, tag, state_->comm,
                &request) == MPI_SUCCESS)
    state_->Add(request, kSendId);
}

void PeerMessages::Receive(int peer, int tag, std::span<std::byte> place, int64_t id) {
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Irecv(place.data(), MessageCount(place.size()), MPI_BYTE, peer, tag, state_->comm,
                &request) == MPI_SUCCESS)
    state_->Add(request, id);
}

void PeerMessages::Progress(FunctionRef<void(int64_t)> arrived) {
  State& s = *state_;
  if (s.requests.empty()) return;
  int num_done = 0;
  const int code = MPI_Testsome(static_cast<int>(s.requests.size()), s.requests.data(), &num_done,
                                s.done.data(), MPI_STATUSES_IGNORE);
  if (num_done == MPI_UNDEFINED || num_done == 0) return;
  if (code == MPI_SUCCESS)
    for (int i = 0; i < num_done; ++i) {
      const int64_t id = s.ids[static_cast<size_t>(s.done[static_cast<size_t>(i)])];
      if (id != kSendId) arrived(id);
    }
  size_t kept = 0;
  for (size_t i = 0; i < s.requests.size(); ++i) {
    if (s.requests[i] == MPI_REQUEST_NULL) continue;
    s.requests[kept] = s.requests[i];
    s.ids[kept++] = s.ids[i];
  }
  s.requests.resize(kept);
  s.ids.resize(kept);
}

bool PeerMessages::Close() {
  State& s = *state_;
  if (s.is_closed) return s.requests.empty();
  s.is_closed = true;
  const auto end = std::chrono::steady_clock::now() + s.group->options().deadline;
  const auto is_sending = [&] {
    return std::find(s.ids.begin(), s.ids.end(), kSendId) != s.ids.end();
  };
  while (is_sending()) {
    if (s.group->Aborted() || std::chrono::steady_clock::now() > end) return false;
    Progress([](int64_t) {});
    std::this_thread::sleep_for(kClosePoll);
  }
  if (s.group->Aborted()) return s.requests.empty();
  for (MPI_Request& request : s.requests) {
    MPI_Cancel(&request);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
  }
  s.requests.clear();
  return true;
}

}  // namespace wideload::comm
