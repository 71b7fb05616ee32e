// Ranks that are threads of one process. LocalGroup owns what they share; make it before the
// threads, destroy it after them. The communicator of a rank is used by that rank's thread.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/wait.h"
#include "comm/communicator.h"

namespace wideload::comm {

class LocalGroup {
 public:
  // Errors: kInvalid when num_ranks < 1 or the deadline is not positive.
  LocalGroup(int num_ranks, GroupOptions options);
  ~LocalGroup();
  LocalGroup(const LocalGroup&) = delete;
  LocalGroup& operator=(const LocalGroup&) = delete;

  int size() const { return static_cast<int>(ranks_.size()); }
  const GroupOptions& options() const { return options_; }
  // Valid as long as the group.
  Communicator& rank(int r);

  // As Communicator::Abort, in the name of `rank`. Any thread.
  void Abort(int rank, const std::string& reason);
  // The first Abort; nothing while there is none.
  std::optional<AbortReport> Aborted() const;

 private:
  class Rank;
  LocalGroup(LocalGroup& whole, const RankPart& part);
  std::shared_ptr<LocalGroup> PartOf(int64_t call, const RankPart& ranks);

  GroupOptions options_;
  WaitLadder ladder_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::atomic<bool> is_aborted_{false};
  mutable std::mutex abort_mutex_;
  AbortReport abort_report_;
  std::mutex parts_mutex_;
  // By MakePart's call, counted by each rank, and first rank; the ranks own them.
  std::map<std::pair<int64_t, int>, std::weak_ptr<LocalGroup>> parts_;
};

}  // namespace wideload::comm
