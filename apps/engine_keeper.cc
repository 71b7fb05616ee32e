#include "engine_keeper.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <optional>
#include <random>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "command_line.h"
#include "interrupt.h"

namespace wideload::apps {
namespace {

constexpr std::chrono::milliseconds kRest{20};

bool IsSuccess(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

}  // namespace

bool RestartBudget::Take(Clock::time_point now) {
  while (!taken_.empty() && now - taken_.front() > window_) taken_.pop_front();
  if (used() >= max_restarts_) return false;
  taken_.push_back(now);
  return true;
}

EngineKeeper::EngineKeeper(serve::Front& front, EngineProcess process)
    : front_(front), process_(std::move(process)), budget_(process_.max_restarts, kRestartWindow) {}

EngineKeeper::~EngineKeeper() = default;

// With a socket of its own: ranks of the last one may live a moment longer than their launcher.
void EngineKeeper::StartProcess() {
  std::random_device random;
  socket_ = {fmt::format("wideload.{}.{:08x}{:08x}", ::getpid(), random(), random())};
  std::vector<std::string> argv = process_.argv;
  argv.insert(argv.end(), {"--engine-socket", socket_.name});
  child_ = std::make_unique<ChildProcess>(argv);
}

bool EngineKeeper::Start() {
  StartProcess();
  bool is_told = false;
  while (!serve::IsListening(socket_)) {
    if (InterruptSignal() != 0 && !std::exchange(is_told, true)) child_->Signal(SIGTERM);
    if (const std::optional<int> status = child_->Poll()) {
      if (IsSuccess(*status)) return false;
      if (WIFEXITED(*status)) EndSilently(WEXITSTATUS(*status));
      Throw(ErrorKind::kRunFailed, "the engine has ended before it was ready: {}",
            DescribeEnd(*status));
    }
    std::this_thread::sleep_for(kRest);
  }
  front_.SetUp(socket_);
  return true;
}

bool EngineKeeper::Look() {
  if (HasEndedWell()) return false;
  if (const std::optional<int> status = child_->Poll()) {
    front_.SetDown();
    if (IsSuccess(*status)) {
      child_.reset();
      return false;
    }
    Restart(*status);
  } else if (!front_.is_up() && serve::IsListening(socket_)) {
    front_.SetUp(socket_);
    if (ended_ != RestartBudget::Clock::time_point()) {
      const std::chrono::duration<double> away =
          RestartBudget::Clock::now() - std::exchange(ended_, {});
      LogInfo("the engine answers again after {:.1f} s", away.count());
    }
  }
  return true;
}

void EngineKeeper::Restart(int status) {
  const auto now = RestartBudget::Clock::now();
  const std::string end = DescribeEnd(status);
  if (!budget_.Take(now))
    Throw(ErrorKind::kRunFailed,
          "the engine has failed again ({}) after {} restarts within {} minutes (--max-restarts)",
          end, budget_.used(), kRestartWindow.count());
  LogWarn(
      "the engine has failed: {}; it is started again, {} of at most {} times within {} minutes",
      end, budget_.used(), process_.max_restarts, kRestartWindow.count());
  if (ended_ == RestartBudget::Clock::time_point()) ended_ = now;
  front_.CountRestart();
  StartProcess();
}

void EngineKeeper::End(std::chrono::milliseconds longest) {
  if (HasEndedWell()) return;
  child_->Signal(SIGTERM);
  const auto no_later = RestartBudget::Clock::now() + longest;
  while (!child_->Poll()) {
    if (RestartBudget::Clock::now() >= no_later) {
      LogWarn("the engine does not end by itself and is killed");
      break;
    }
    std::this_thread::sleep_for(kRest);
  }
  child_.reset();
}

}  // namespace wideload::apps
