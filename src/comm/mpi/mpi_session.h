// MPI in this process, and communicators over it. Without MPI in the build every start is refused;
// no header of MPI is needed here.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "comm/communicator.h"

namespace wideload::comm {

class MpiCommunicator;

// "Open MPI v4.1.4, ...", or "" when this program was built without MPI. Before or after a start.
std::string MpiVersion();

class MpiSession {
 public:
  // Starts MPI; once per process, and only where DetectLaunch says kMpi. Collective: all processes
  // of the run. `parts`: sizes of runs that go their own ways, the first ranks being the first one;
  // where they add up to the processes that were started, the session is that of this process's
  // part, and the others are none of its. Errors: kUnsupported when the program was built without
  // MPI or the library does not let several threads call it.
  explicit MpiSession(std::span<const int32_t> parts = {});
  // Meets the others and ends MPI. After a fault those that live get two seconds to come, so that
  // they hear of it before this process is gone; when one does not come, MPI is left as it is, and
  // mpirun ends the rest once this process exits.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  // How this process says why its run has failed: once, and at once, since the launcher ends it
  // about a second after the death of another rank. `tell` may be called in any thread, also after
  // this process has called Fail. Without it the reason goes to stderr.
  //   - Fail says it.
  //   - A thread of its own says which rank has died where the ranks' thread has not said anything
  //     0.4 s after that. Where that thread has not come to know of it after 2.5 s either (it waits
  //     for something else, or within MPI, whose calls may not come back), or MPI ends the process,
  //     it ends with exit code 1.
  void OnFailure(std::function<void(const std::string&)> tell);
  // The run has failed on this rank; the end counts as one after a fault.
  void Fail(const std::string& reason);
  // The same where another rank says why.
  void NoteFault();
  // `group`, which is of this rank, says where it is when MpiSession has to say who died.
  void AddPlace(const Communicator& group);
  void RemovePlace(const Communicator& group);

  // This process among all that were started, or those of its part.
  int rank() const;
  // How many these are.
  int size() const;
  // Which of the parts this is; -1: it is not divided.
  int part() const;
  // The processes of all parts, in the order in which they were started; null when it is not
  // divided. For what parts settle before their work: it waits for all that live. Collective over
  // all parts. Drop it then, since MPI does not survive messages to ranks that are dead.
  std::unique_ptr<Communicator> MeetAllParts();
  // Ranks of other parts may be dead: MPI is left as it is in the end.
  void ForgetOtherParts();
  // Among the processes of this host, as HostId tells hosts apart.
  int local_rank() const;
  // How many there are on this host.
  int local_size() const;

  // A group of the first num_ranks ranks (0: all); null on the others. No wait of it blocks within
  // MPI: all of them are bounded by group.deadline, and end when a rank dies: a process of
  // this host at once, one of another host within 1 s, or after 4 s without a sign of life where
  // its host does not answer either. Collective over all ranks, in the same order. Must not outlive
  // the session. Errors: kInvalid for a bad num_ranks or deadline; kRunFailed when MPI fails.
  std::unique_ptr<Communicator> MakeCommunicator(GroupOptions group, int num_ranks = 0);

  struct State;

 private:
  std::unique_ptr<MpiCommunicator> MakeMpiCommunicator(GroupOptions group, int count);

  std::unique_ptr<State> state_;
};

}  // namespace wideload::comm
