#include "runtime/servers/context_server.h"

#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"

namespace wideload::runtime {
namespace {

constexpr std::chrono::milliseconds kServerRest{100};  // a wake-up comes at once
constexpr std::chrono::milliseconds kHeldRest{2};      // blocks that leases hold may come back
constexpr std::chrono::milliseconds kFiguresPace{200};

}  // namespace

ContextServer::ContextServer(Engine& engine, MessageSocket& generation,
                             std::function<int()> pending_signal)
    : generation_(generation), pending_signal_(std::move(pending_signal)), loop_(engine, nullptr) {
  reader_ = StartThread("context reader", [this] { Receive(); });
}

ContextServer::~ContextServer() {
  generation_.Close();
  reader_.join();
}

bool ContextServer::Serve() {
  int64_t num_iterations = -1;
  while (!is_end_said_ && !is_generation_gone_) {
    const int64_t num_before = std::exchange(num_iterations, loop_.figures().num_iterations);
    if (loop_.idle())
      loop_.Wait(kServerRest);
    else if (num_before == num_iterations)
      loop_.Wait(kHeldRest);
    loop_.Step();
    TellState();
  }
  if (is_end_said_) loop_.Step();  // what was let go before the end was said
  loop_.EndAll(kEngineStopped);
  if (!is_end_said_)
    Throw(ErrorKind::kRunFailed, "the generation server, for which prompts are computed, is gone");
  return are_all_there_;
}

void ContextServer::Receive() {
  try {
    while (const auto bytes = generation_.Receive()) Take(ReadMessage(*bytes));
  } catch (const std::exception& failure) {
    LogWarn("the generation server is not understood: {}", failure.what());
  }
  is_generation_gone_ = true;
  loop_.Wake();
}

void ContextServer::Take(ServerMessage message) {
  std::shared_ptr<const PromptLease> let_go;  // outside of the lock
  switch (message.kind) {
    case MessageKind::kBegin:
      return Begin(message.id, std::move(message.job));
    case MessageKind::kCancel: {
      const std::lock_guard lock(mutex_);
      if (const auto job = jobs_.find(message.id); job != jobs_.end()) loop_.Cancel(job->second);
      return;
    }
    case MessageKind::kRelease: {
      const std::lock_guard lock(mutex_);
      if (const auto lease = leases_.find(message.id); lease != leases_.end()) {
        let_go = std::move(lease->second);
        leases_.erase(lease);
      }
      return;
    }
    case MessageKind::kEnd:
      are_all_there_ = message.number == 1;
      is_end_said_ = true;
      loop_.Wake();
      return;
    default:
      Throw(ErrorKind::kCorrupt, "a message of kind {} for a context server",
            static_cast<int32_t>(message.kind));
  }
}

// It may end before it is noted: Tell waits for the lock.
void ContextServer::Begin(PromptId id, Job job) {
  job.sink = [this, id](Delta delta) { Tell(id, std::move(delta)); };
  const std::lock_guard lock(mutex_);
  jobs_.emplace(id, loop_.Submit(std::move(job)));
}

// On the engine's thread.
void ContextServer::Tell(PromptId id, Delta delta) {
  ServerMessage message{.kind = MessageKind::kDelta, .id = id};
  if (delta.is_last()) {
    num_prompts_ += delta.token >= 0 ? 1 : 0;
    const std::lock_guard lock(mutex_);
    jobs_.erase(id);
    if (delta.lease != nullptr) {
      message.has_lease = true;
      message.group = delta.lease->prompt().group;
      message.tables = delta.lease->prompt().tables;
      leases_.emplace(id, std::move(delta.lease));
    }
  }
  message.delta = std::move(delta);
  std::vector<std::byte> bytes;
  WriteMessage(message, bytes);
  generation_.Send(bytes);
}

void ContextServer::TellState() {
  std::vector<std::byte> bytes;
  const int signal = pending_signal_ ? pending_signal_() : 0;
  if (std::exchange(told_signal_, signal) != signal) {
    WriteMessage({.kind = MessageKind::kSignal, .number = signal}, bytes);
    generation_.Send(bytes);
  }
  const auto now = std::chrono::steady_clock::now();
  if (now - told_at_ < kFiguresPace) return;
  const EngineFigures figures = loop_.figures();
  const ContextFigures found{.num_waiting = figures.num_waiting,
                             .num_running = figures.num_running,
                             .num_held = figures.num_held,
                             .num_iterations = figures.num_iterations,
                             .num_prompts = num_prompts_,
                             .kv_usage = figures.kv_usage};
  if (found == told_) return;
  told_at_ = now;
  told_ = found;
  WriteMessage({.kind = MessageKind::kFigures, .figures = found}, bytes);
  generation_.Send(bytes);
}

}  // namespace wideload::runtime
