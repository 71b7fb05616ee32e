#include "runtime/processes/rank_server.h"

#include "base/error.h"

namespace wideload::runtime {

RankServer::RankServer(const model::Model& model, const EngineOptions& options,
                       const RankLinks& links)
    : trace_(options.trace),
      placements_(model, options),
      links_(links),
      has_outputs_(HasOutputs(options.layout, links.group->rank())),
      part_(CachePartOf(options, model.spec().num_layers(), links.group->rank())),
      channel_(*links.orders, *links.group),
      orders_(options, model.spec().vocab_size, kv::Windows(model::CacheShapes(model.spec()))),
      rank_(std::make_unique<Rank>(
          model, MakeRankOptions(model, options, placements_, *links.group, links.exchange))) {}

void RankServer::Serve() {
  try {
    while (ServeOne()) {
    }
  } catch (const std::exception& failure) {
    links_.group->Abort(failure.what());
    if (links_.on_failure) links_.on_failure(failure);
    throw;
  }
}

FetchResult RankServer::Fetch(const FetchOrder& order) const {
  if (links_.contexts == nullptr)
    Throw(ErrorKind::kCorrupt, "an order to fetch of context server {}: there is none",
          order.server);
  const CachedSequence from = links_.contexts->SequenceOf(order.server, order.group, order.from);
  for (size_t c = 0; c < order.to.size(); ++c)
    if (!TakesAll(order.from[c], order.to[c], {.from = from.parts.front(), .to = part_},
                  order.first_block))
      Throw(ErrorKind::kCorrupt, "an order to fetch {} blocks into {}", order.from[c].blocks.size(),
            order.to[c].blocks.size());
  return FetchPart(links_, from,
                   {.part = part_, .cache = rank_->cache(order.micro_batch), .tables = order.to},
                   order.first_block);
}

// False once no order follows.
bool RankServer::ServeOne() {
  const StepOrder& order =
      orders_.Read(channel_.Receive(0, MessageChannel::Patience::kWhileAlive, "the next order"));
  if (order.kind == OrderKind::kStop) return false;
  if (order.kind == OrderKind::kStart) {
    rank_->Start();
    links_.group->Barrier();
    return true;
  }
  if (order.kind == OrderKind::kReadTrace) {
    WriteTracks(trace_ != nullptr ? trace_->Read() : std::vector<trace::TrackData>(), bytes_);
    channel_.Send(0, bytes_);
    return true;
  }
  if (order.kind == OrderKind::kFetch) {
    WriteFetchAnswer(Fetch(order.fetch), bytes_);
    channel_.Send(0, bytes_);
    return true;
  }
  if (std::exchange(counts_routed_, order.count_routed) != order.count_routed)
    rank_->CountRouted(order.count_routed);
  rank_->Run({.entries = order.entries,
              .iteration = order.iteration,
              .most_tokens = order.most_tokens,
              .announced = order.change ? placements_.Apply(*order.change) : nullptr,
              .micro_batch = order.micro_batch,
              .incoming_tokens = order.incoming_tokens});
  const std::span<const PlanEntry> answered =
      has_outputs_ ? order.entries : std::span<const PlanEntry>();
  WriteAnswer(answered, rank_->result(),
              {.signal = links_.pending_signal ? links_.pending_signal() : 0,
               .routed_counts = rank_->routed_counts()},
              bytes_);
  channel_.Send(0, bytes_);
  return true;
}

}  // namespace wideload::runtime
