// Where `wideload eplb simulate` takes its iterations from: token-level routing, a load table that
// tokens are drawn from, or a statistics folder. Layers may be made on several threads.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "command_line.h"
#include "eplb/replay/simulate.h"
#include "eplb_commands.h"

namespace wideload::apps {

// Options of one source; 0 and empty are "not given", so that those of another are refused.
struct TraceFlags {
  std::string routing, loads;
  StatisticsFlags statistics;
  int32_t num_experts = 0;                       // of --routing
  std::string iterations, answer_order, record;  // of --routing
  int64_t tokens_per_rank = 0;                   // of --loads, and the three below
  double wobble = -1;
  int32_t recorded = 0;
  int32_t measured = 0;
  int32_t top_k = 0;  // of --loads; of the others it must be theirs
  std::string layers;
  std::string phase;  // of --loads
};
void AddTraceFlags(Command command, TraceFlags& flags);

class LayerTraces {
 public:
  // ep_size ranks draw tokens_per_rank tokens each. Errors: as the readers; kInvalid naming a flag.
  LayerTraces(const TraceFlags& flags, int32_t ep_size, uint64_t seed);

  int32_t num_experts() const { return num_experts_; }
  int32_t top_k() const { return top_k_; }
  // Tokens in their order are known, not only how many chose each expert.
  bool has_tokens() const { return statistics_.layers.empty(); }
  const std::vector<int32_t>& layers() const { return layers_; }  // with load
  const std::vector<int32_t>& without_load() const { return without_load_; }
  eplb::LayerTrace Make(size_t index) const;  // of layers()[index]

 private:
  void TakeRouting(const TraceFlags& flags);
  void TakeLoads(const TraceFlags& flags, int32_t ep_size);
  void TakeTable(const TraceFlags& flags, const statistics::LoadTable& table, int32_t ep_size);
  void TakeFolder(const TraceFlags& flags);
  void TakeStatistics(const std::string& source);
  eplb::LayerTrace Draw(size_t index) const;
  eplb::LayerTrace OfCounts(size_t index) const;

  int32_t num_experts_ = 0;
  int32_t top_k_ = 0;
  uint64_t seed_ = 1;
  std::vector<int32_t> layers_, without_load_;
  std::vector<int32_t> rows_;  // of layers_: which layer of the source, of those with load
  eplb::RoutingTrace routing_;
  eplb::IterationRule rule_;
  statistics::LoadTable table_;
  statistics::ExpertStatistics statistics_;
  int64_t tokens_per_iteration_ = 0;  // of a table, and the three below
  double wobble_ = 0;
  int32_t recorded_ = 0;
  int32_t measured_ = 0;
};

}  // namespace wideload::apps
