#include "support/engine_processes.h"

#include "exchange/shm_fabric.h"
#include "runtime/processes/rank_server.h"

namespace wideload::testing_support {

ProcessOutcome RunEngineOnProcesses(const runtime::EngineOptions& options,
                                    const std::function<const model::Model&(int rank)>& model_of,
                                    const std::function<void(runtime::Engine&)>& lead,
                                    const std::string& job) {
  return RunRankProcesses(
      options.num_ranks(), {.deadline = options.deadline}, job, [&](comm::Communicator& group) {
        const model::Model& model = model_of(group.rank());
        exchange::ShmFabric rows(group, runtime::ExchangeSegmentBytes(model, options),
                                 job + "-rows");
        exchange::ShmFabric orders(
            group, runtime::MessageChannel::SegmentBytes(options.num_ranks()), job + "-orders");
        const runtime::RankLinks links{.group = &group, .exchange = &rows, .orders = &orders};
        if (group.rank() > 0) return runtime::RankServer(model, options, links).Serve();
        runtime::Engine engine(model, options, links);
        lead(engine);
      });
}

}  // namespace wideload::testing_support
