// A process that is a rank other than 0: carries out the orders of rank 0 until that says stop.
// Used by one thread, the rank's.
#pragma once

#include <memory>
#include <vector>

#include "runtime/processes/process_team.h"

namespace wideload::runtime {

class RankServer {
 public:
  // `model` and `links` must outlive the server. Errors: kInvalid for a layout that does not fit.
  RankServer(const model::Model& model, const EngineOptions& options, const RankLinks& links);

  // Serves to the end. Collective with the engine of rank 0. Errors: comm::PeerLost; what ended
  // this rank (then the group is ended with that reason).
  void Serve();

 private:
  bool ServeOne();
  FetchResult Fetch(const FetchOrder& order) const;

  const trace::Trace* trace_;  // null: nothing is traced
  PlacementState placements_;
  RankLinks links_;
  bool has_outputs_;
  CachePart part_;
  MessageChannel channel_;
  OrderReader orders_;
  std::unique_ptr<Rank> rank_;
  std::vector<std::byte> bytes_;
  bool counts_routed_ = false;
};

}  // namespace wideload::runtime
