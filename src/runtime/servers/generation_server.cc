#include "runtime/servers/generation_server.h"

#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "runtime/token_engine.h"

namespace wideload::runtime {
namespace {

constexpr std::chrono::milliseconds kGenerationRest{100};  // a wake-up comes at once
constexpr std::chrono::milliseconds kStatePace{200};

}  // namespace

GenerationServer::GenerationServer(Engine& engine, const ContextCaches& caches,
                                   MessageSocket& front, Grammars grammars,
                                   std::function<int()> pending_signal)
    : engine_(engine),
      caches_(caches),
      front_(front),
      grammars_(std::move(grammars)),
      pending_signal_(std::move(pending_signal)) {
  reader_ = StartThread("generation", [this] { Receive(); });
}

GenerationServer::~GenerationServer() {
  front_.Close();
  reader_.join();
  engine_.DropLeases();
}

bool GenerationServer::Serve() {
  while (!is_end_said_ && !is_front_gone_) {
    if (engine_.idle()) wake_.Sleep(seen_, kGenerationRest);
    TakeInbox();
    bool has_next = false;  // that the events of the iteration before could be told beside
    const std::span<const Event> events = engine_.Step([&] {
      has_next = true;
      TellEvents();
    });
    TellEvents();
    events_ = events;
    if (!has_next || engine_.idle()) TellEvents();
    TellState();
  }
  if (!is_end_said_)
    Throw(ErrorKind::kRunFailed, "the front door, for which requests are generated, is gone");
  return are_all_there_;
}

void GenerationServer::Receive() {
  try {
    while (const auto bytes = front_.Receive()) {
      ServerMessage message = ReadMessage(*bytes);
      if (message.kind == MessageKind::kEnd) {
        are_all_there_ = message.number == 1;
        is_end_said_ = true;
      } else if (message.kind == MessageKind::kBegin || message.kind == MessageKind::kGenerate ||
                 message.kind == MessageKind::kCancel) {
        TakeGrammar(message);
        const std::lock_guard lock(mutex_);
        inbox_.push_back(std::move(message));
      } else {
        Throw(ErrorKind::kCorrupt, "a message of kind {} for a generation server",
              static_cast<int32_t>(message.kind));
      }
      wake_.Increment();
    }
  } catch (const std::exception& failure) {
    LogWarn("the front door is not understood: {}", failure.what());
  }
  is_front_gone_ = true;
  wake_.Increment();
}

// Not on the engine's thread: what it may begin with takes milliseconds.
void GenerationServer::TakeGrammar(ServerMessage& message) {
  if (message.grammar == nullptr) return;
  const auto own = [&] { return *message.grammar; };
  message.job.request.grammar = grammars_().Get(fmt::format("{}", message.grammar_id), own);
}

void GenerationServer::TakeInbox() {
  seen_ = wake_.Load();
  std::vector<ServerMessage> messages;
  {
    const std::lock_guard lock(mutex_);
    messages.swap(inbox_);
  }
  for (ServerMessage& message : messages) {
    if (message.kind == MessageKind::kBegin) {
      Note(message.id, engine_.Submit(std::move(message.job.request)));
    } else if (message.kind == MessageKind::kGenerate) {
      Begin(std::move(message));
    } else if (const auto own = own_ids_.find(message.id); own != own_ids_.end()) {
      engine_.Cancel(own->second);
    }
  }
}

void GenerationServer::Begin(ServerMessage message) {
  const PromptId told_id = message.id;
  auto lease = std::make_shared<const PromptLease>(
      caches_.SequenceOf(message.number, message.group, message.tables),
      [this, told_id] { Send({.kind = MessageKind::kRelease, .id = told_id}); });
  const RequestId id = engine_.SubmitComputed(
      std::move(message.job.request), {.lease = std::move(lease),
                                       .token = message.delta.token,
                                       .num_cached_tokens = message.delta.num_cached_tokens});
  Note(told_id, id);
}

void GenerationServer::Note(PromptId told_id, RequestId id) {
  told_ids_.emplace(id, told_id);
  own_ids_.emplace(told_id, id);
}

void GenerationServer::TellEvents() {
  ServerMessage message{.kind = MessageKind::kEvents};
  for (const Event& event : std::exchange(events_, {})) {
    const auto told = told_ids_.find(event.id);
    if (told == told_ids_.end()) continue;
    message.events.push_back(event);
    message.events.back().id = told->second;
    if (event.finish == FinishReason::kNone) continue;
    own_ids_.erase(told->second);
    told_ids_.erase(told);
  }
  if (!message.events.empty()) Send(message);
}

void GenerationServer::TellState() {
  const int signal = pending_signal_ ? pending_signal_() : 0;
  if (std::exchange(told_signal_, signal) != signal)
    Send({.kind = MessageKind::kSignal, .number = signal});
  const auto now = std::chrono::steady_clock::now();
  if (now - told_at_ < kStatePace) return;
  const EngineFigures found = FiguresOf(engine_);
  if (found == told_) return;
  told_at_ = now;
  told_ = found;
  Send({.kind = MessageKind::kEngineFigures, .engine = found});
}

void GenerationServer::Send(const ServerMessage& message) {
  std::vector<std::byte> bytes;
  WriteMessage(message, bytes);
  front_.Send(bytes);
}

}  // namespace wideload::runtime
