#include "support/engine_processes.h"

#include <optional>

#include "base/error.h"
#include "exchange/shm_fabric.h"
#include "runtime/processes/rank_server.h"

namespace wideload {
namespace {

// A rank that has ended before another one has read its last order would be taken for dead. Under
// mpirun MpiSession meets the others at its end. After a failure they need not come.
void MeetAtTheEnd(comm::Communicator& group) {
  try {
    group.Barrier();
  } catch (const Error&) {
    // Who has failed has said so: this is no refusal of its own.
  }
}

}  // namespace

ProcessOutcome RunEngineProcesses(const EngineProcesses& run) {
  const runtime::EngineOptions& options = run.options;
  return RunRankProcesses(
      options.num_ranks(), {.deadline = options.deadline}, run.job, [&](comm::Communicator& group) {
        const model::Model& model = run.model_of(group.rank());
        std::optional<exchange::ShmFabric> rows;
        if (const int64_t bytes = runtime::ExchangeSegmentBytes(model, options); bytes > 0)
          rows.emplace(group, bytes, run.job + "-rows");
        exchange::ShmFabric orders(
            group, runtime::MessageChannel::SegmentBytes(options.num_ranks()), run.job + "-orders");
        const runtime::RankLinks links{
            .group = &group, .exchange = rows ? &*rows : nullptr, .orders = &orders};
        if (group.rank() > 0) {
          runtime::RankServer(model, options, links).Serve();
        } else {
          runtime::Engine engine(model, options, links);
          run.lead(engine);
        }
        MeetAtTheEnd(group);
      });
}

}  // namespace wideload
