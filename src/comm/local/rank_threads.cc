#include "comm/local/rank_threads.h"

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "base/thread_pool.h"

namespace wideload::comm {
namespace {

// Owned by the caller and by every rank thread: a stuck thread outlives RunRanks.
struct Run {
  std::function<void(Communicator&)> body;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<bool> is_done;
  int num_running = 0;
  std::string error;       // of the first rank that found a fault itself
  std::string told_error;  // of the first rank that was told of one
};

void Finish(Run& run, int rank, const std::exception* error) {
  const auto* lost = dynamic_cast<const PeerLost*>(error);
  const std::scoped_lock lock(run.mutex);
  run.is_done[static_cast<size_t>(rank)] = true;
  --run.num_running;
  if (error != nullptr) {
    std::string& text = lost != nullptr && lost->details().is_told ? run.told_error : run.error;
    if (text.empty()) text = error->what();
  }
  run.changed.notify_all();
}

void RunRank(const std::shared_ptr<Run>& run, Communicator& communicator) {
  const int rank = communicator.rank();
  try {
    run->body(communicator);
    Finish(*run, rank, nullptr);
  } catch (const std::exception& error) {
    communicator.Abort(error.what());
    Finish(*run, rank, &error);
  }
}

bool HasFailed(const Run& run) { return !run.error.empty() || !run.told_error.empty(); }

}  // namespace

RankOutcome RunRanks(LocalGroup& group, std::function<void(Communicator&)> body) {
  const auto run = std::make_shared<Run>();
  run->body = std::move(body);
  run->is_done.resize(static_cast<size_t>(group.size()));
  run->num_running = group.size();
  std::vector<std::jthread> threads;
  try {
    for (int r = 0; r < group.size(); ++r)
      threads.push_back(
          StartThread(fmt::format("rank {}", r),
                      [run, &communicator = group.rank(r)] { RunRank(run, communicator); }));
  } catch (const Error& error) {
    group.Abort(0, error.what());  // those that run end, and are joined
    throw;
  }

  RankOutcome outcome;
  {
    std::unique_lock lock(run->mutex);
    const auto all_done = [&] { return run->num_running == 0; };
    run->changed.wait(lock, [&] { return all_done() || HasFailed(*run); });
    if (!all_done())
      run->changed.wait_for(lock, group.options().deadline + std::chrono::seconds(1), all_done);
    outcome.error = !run->error.empty() ? run->error : run->told_error;
    for (int r = 0; r < group.size(); ++r)
      if (!run->is_done[static_cast<size_t>(r)]) outcome.stuck_ranks.push_back(r);
  }
  for (int r = 0; r < group.size(); ++r) {
    const bool is_stuck = std::count(outcome.stuck_ranks.begin(), outcome.stuck_ranks.end(), r) > 0;
    std::jthread& thread = threads[static_cast<size_t>(r)];
    is_stuck ? thread.detach() : thread.join();
  }
  return outcome;
}

}  // namespace wideload::comm
