#include "runtime/servers/remote_engine.h"

#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"

namespace wideload::runtime {
namespace {

void SendMessage(MessageSocket& socket, const ServerMessage& message) {
  std::vector<std::byte> bytes;
  WriteMessage(message, bytes);
  socket.Send(bytes);
}

void PutRequest(Request request, ServerMessage& message) {
  if (request.grammar != nullptr) {
    message.grammar = {request.grammar, &request.grammar->grammar()};
    message.grammar_id = request.grammar->id();
  }
  message.job.request = std::move(request);
}

}  // namespace

RemoteEngine::RemoteEngine(std::unique_ptr<MessageSocket> socket, std::string name,
                           std::function<void(int)> on_signal)
    : socket_(std::move(socket)), name_(std::move(name)), on_signal_(std::move(on_signal)) {
  reader_ = StartThread(name_.substr(0, 15), [this] { Receive(); });
}

RemoteEngine::~RemoteEngine() {
  is_stopping_ = true;
  socket_->Close();
  if (reader_.joinable()) reader_.join();
}

void RemoteEngine::Stop(bool are_all_there) {
  is_stopping_ = true;
  SendMessage(*socket_, {.kind = MessageKind::kEnd, .number = are_all_there});
  if (reader_.joinable()) reader_.join();
}

RequestId RemoteEngine::Submit(Request request) {
  const RequestId id = next_id_++;
  ServerMessage message{.kind = MessageKind::kBegin, .id = id};
  PutRequest(std::move(request), message);
  ++num_open_;
  SendMessage(*socket_, message);
  return id;
}

RequestId RemoteEngine::SubmitComputed(Request request, ComputedPrompt prompt) {
  const RequestId id = next_id_++;
  const CachedSequence& place = prompt.lease->prompt();
  ServerMessage message{.kind = MessageKind::kGenerate,
                        .id = id,
                        .group = place.group,
                        .tables = place.tables,
                        .number = place.server};
  message.delta.token = prompt.token;
  message.delta.num_cached_tokens = prompt.num_cached_tokens;
  PutRequest(std::move(request), message);
  {
    const std::lock_guard lock(mutex_);
    leases_.emplace(id, std::move(prompt.lease));
  }
  ++num_open_;
  SendMessage(*socket_, message);
  return id;
}

void RemoteEngine::Cancel(RequestId id) {
  if (id >= 0) SendMessage(*socket_, {.kind = MessageKind::kCancel, .id = id});
}

bool RemoteEngine::HasLease(RequestId id) const {
  const std::lock_guard lock(mutex_);
  return leases_.contains(id);
}

void RemoteEngine::DropLeases() {
  std::map<RequestId, std::shared_ptr<const PromptLease>> dropped;  // outside of the lock
  const std::lock_guard lock(mutex_);
  dropped.swap(leases_);
}

std::span<const Event> RemoteEngine::Step(const std::function<void()>& /*meanwhile*/) {
  events_.clear();
  const bool is_gone = is_gone_;  // nothing comes after
  {
    const std::lock_guard lock(mutex_);
    events_.swap(new_events_);
  }
  for (const Event& event : events_)
    if (event.finish != FinishReason::kNone) --num_open_;
  if (is_gone && events_.empty()) Throw(ErrorKind::kRunFailed, "{} is gone", name_);
  return events_;
}

bool RemoteEngine::idle() const {
  const std::lock_guard lock(mutex_);
  return num_open_ == 0 && new_events_.empty();
}

bool RemoteEngine::only_waits() const {
  const std::lock_guard lock(mutex_);
  return new_events_.empty() && !is_gone_;
}

EngineFigures RemoteEngine::figures() const {
  const std::lock_guard lock(mutex_);
  return figures_;
}

void RemoteEngine::SetWake(const std::function<void()>& wake) {
  const std::lock_guard lock(mutex_);
  wake_ = wake;
}

void RemoteEngine::Wake() {
  const std::lock_guard lock(mutex_);
  if (wake_) wake_();
}

void RemoteEngine::Receive() {
  try {
    while (const auto bytes = socket_->Receive()) Take(ReadMessage(*bytes));
  } catch (const std::exception& failure) {
    LogWarn("{} is not understood: {}", name_, failure.what());
    socket_->Close();
  }
  is_gone_ = true;
  Wake();
}

void RemoteEngine::Take(ServerMessage message) {
  std::shared_ptr<const PromptLease> let_go;  // outside of the lock
  switch (message.kind) {
    case MessageKind::kEvents: {
      const std::lock_guard lock(mutex_);
      for (Event& event : message.events) new_events_.push_back(std::move(event));
      if (wake_) wake_();
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
    case MessageKind::kEngineFigures: {
      {
        const std::lock_guard lock(mutex_);
        figures_ = message.engine;
      }
      return Wake();
    }
    case MessageKind::kSignal:
      if (on_signal_) on_signal_(message.number);
      return;
    default:
      Throw(ErrorKind::kCorrupt, "a message of kind {} for a front door",
            static_cast<int32_t>(message.kind));
  }
}

}  // namespace wideload::runtime
