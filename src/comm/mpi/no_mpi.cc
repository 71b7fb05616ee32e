// What is left of MPI in a build without it: a clear refusal.
#include "comm/mpi/mpi_session.h"
#include "comm/mpi/peer_messages.h"

namespace wideload::comm {

struct MpiSession::State {};

std::string MpiVersion() { return {}; }

MpiSession::MpiSession(std::span<const int32_t>) {
  Throw(ErrorKind::kUnsupported,
        "this program was built without MPI and cannot be a rank of mpirun or srun; install Open "
        "MPI (libopenmpi-dev, openmpi-bin) and build again, or start it without mpirun");
}
MpiSession::~MpiSession() = default;
void MpiSession::Fail(const std::string&) {}
void MpiSession::NoteFault() {}
void MpiSession::AddPlace(const Communicator&) {}
void MpiSession::RemovePlace(const Communicator&) {}
// NOLINTNEXTLINE(performance-unnecessary-value-param): the interface's
void MpiSession::OnFailure(std::function<void(const std::string&)>) {}
int MpiSession::rank() const { return 0; }
int MpiSession::size() const { return 1; }
int MpiSession::part() const { return -1; }
std::unique_ptr<Communicator> MpiSession::MeetAllParts() { return nullptr; }
void MpiSession::ForgetOtherParts() {}
int MpiSession::local_rank() const { return 0; }
int MpiSession::local_size() const { return 1; }
// NOLINTNEXTLINE(performance-unnecessary-value-param): the interface's
std::unique_ptr<Communicator> MpiSession::MakeCommunicator(GroupOptions, int) { return nullptr; }

struct PeerMessages::State {};

PeerMessages::PeerMessages(Communicator&) {
  Throw(ErrorKind::kUnsupported,
        "this program was built without MPI and cannot send messages between hosts; install Open "
        "MPI (libopenmpi-dev, openmpi-bin) and build again, or keep all ranks on one host");
}
PeerMessages::~PeerMessages() = default;
int PeerMessages::max_tag() const { return 0; }
void PeerMessages::Send(int, int, std::span<const std::byte>) {}
void PeerMessages::Receive(int, int, std::span<std::byte>, int64_t) {}
void PeerMessages::Progress(FunctionRef<void(int64_t)>) {}
bool PeerMessages::Close() { return true; }

}  // namespace wideload::comm
