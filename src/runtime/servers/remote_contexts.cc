#include "runtime/servers/remote_contexts.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "runtime/constraint.h"

namespace wideload::runtime {
namespace {

void SendTo(MessageSocket& socket, MessageKind kind, PromptId id) {
  std::vector<std::byte> bytes;
  WriteMessage({.kind = kind, .id = id}, bytes);
  socket.Send(bytes);
}

Delta EndedBy(FinishReason reason, std::string error = {}) {
  Delta delta;
  delta.finish = reason;
  delta.error = std::move(error);
  return delta;
}

}  // namespace

RemoteContexts::RemoteContexts(Parts parts)
    : parts_(std::move(parts)), router_(parts_.routing, parts_.capacity, parts_.sockets.size()) {
  WIDELOAD_CHECK(parts_.caches->num_servers() == parts_.sockets.size(),
                 "caches of {} context servers, and {} connections", parts_.caches->num_servers(),
                 parts_.sockets.size());
  for (auto& socket : parts_.sockets) {
    members_.push_back(std::make_unique<Member>());
    members_.back()->socket = std::move(socket);
  }
  for (size_t i = 0; i < members_.size(); ++i)
    members_[i]->reader = StartThread(fmt::format("context {}", i), [this, i] { Receive(i); });
}

RemoteContexts::~RemoteContexts() {
  is_stopping_ = true;
  for (const auto& member : members_) {
    member->socket->Close();
    if (member->reader.joinable()) member->reader.join();
  }
}

bool RemoteContexts::Stop(bool are_others_there) {
  is_stopping_ = true;
  const bool are_all_there =
      are_others_there &&
      std::ranges::none_of(members_, [](const auto& member) { return member->is_gone.load(); });
  std::vector<std::byte> bytes;
  WriteMessage({.kind = MessageKind::kEnd, .number = are_all_there}, bytes);
  for (const auto& member : members_) member->socket->Send(bytes);
  for (const auto& member : members_)
    if (member->reader.joinable()) member->reader.join();
  return are_all_there;
}

bool RemoteContexts::is_any_running() const {
  return std::ranges::any_of(members_, [](const auto& member) { return !member->is_gone; });
}

std::vector<ContextFigures> RemoteContexts::figures() const {
  std::vector<ContextFigures> all;
  for (const auto& member : members_) {
    const std::lock_guard lock(member->mutex);
    all.push_back(member->figures);
    all.back().is_running = !member->is_gone;
  }
  return all;
}

RemoteContexts::Member* RemoteContexts::Choose(const Request& request) {
  std::vector<ServerRouter::Load> loads;
  for (const auto& member : members_)
    loads.push_back({.is_running = !member->is_gone, .num_open = member->num_open});
  const std::optional<size_t> found = router_.Choose(request.prompt, request.cache_salt, loads);
  return found ? members_[*found].get() : nullptr;
}

std::function<void()> RemoteContexts::Begin(Job job) {
  Open open{.sink = job.sink, .matcher = {}};
  Request& request = job.request;
  if (request.grammar != nullptr) {
    open.matcher.emplace(request.grammar);
    request.first_allowed = AllowedTokens(*open.matcher, request, parts_.vocab_size);
  }
  // Of the blocks of a prompt that ends here nothing is fetched.
  request.keeps_cache = request.max_tokens > 1;
  if (request.keeps_cache) request.max_tokens = 1;
  request.min_tokens = std::min(request.min_tokens, request.max_tokens);
  Member* const member = Choose(request);
  ServerMessage message{.kind = MessageKind::kBegin};
  if (member != nullptr) {
    const std::lock_guard lock(member->mutex);
    if (!member->is_gone) {
      message.id = member->next_id++;
      ++member->num_open;
      member->open.emplace(message.id, std::move(open));
    }
  }
  if (message.id < 0) {
    job.sink(EndedBy(FinishReason::kError, kEngineStopped));
    return [] {};
  }
  message.job.request = std::move(request);
  message.job.prompt_logprobs = job.prompt_logprobs;
  std::vector<std::byte> bytes;
  WriteMessage(message, bytes);
  member->socket->Send(bytes);
  return [socket = member->socket, id = message.id] { SendTo(*socket, MessageKind::kCancel, id); };
}

void RemoteContexts::Receive(size_t index) {
  Member& member = *members_[index];
  try {
    while (const auto bytes = member.socket->Receive()) Take(index, ReadMessage(*bytes));
  } catch (const std::exception& failure) {
    LogWarn("context server {} is not understood: {}", index, failure.what());
    member.socket->Close();
  }
  if (!is_stopping_) LogWarn("context server {} is gone", index);
  EndAll(member);
}

void RemoteContexts::EndAll(Member& member) {
  std::map<PromptId, Open> ended;
  {
    const std::lock_guard lock(member.mutex);
    member.is_gone = true;
    ended.swap(member.open);
  }
  for (auto& [id, open] : ended) open.sink(EndedBy(FinishReason::kError, kEngineStopped));
  member.num_open = 0;
}

void RemoteContexts::Take(size_t index, ServerMessage message) {
  Member& member = *members_[index];
  if (message.kind == MessageKind::kSignal && parts_.on_signal) parts_.on_signal(message.number);
  if (message.kind == MessageKind::kFigures) {
    const std::lock_guard lock(member.mutex);
    member.figures = message.figures;
  }
  if (message.kind != MessageKind::kDelta) return;
  Delta& delta = message.delta;
  if (message.has_lease)
    delta.lease = std::make_shared<const PromptLease>(
        parts_.caches->SequenceOf(static_cast<int32_t>(index), message.group, message.tables),
        [socket = member.socket, id = message.id] { SendTo(*socket, MessageKind::kRelease, id); });
  std::optional<Open> open;
  {
    const std::lock_guard lock(member.mutex);
    const auto found = member.open.find(message.id);
    if (found == member.open.end()) return;
    if (!delta.is_last()) {
      // Nothing of it can end meanwhile but by this thread.
      open.emplace(Open{.sink = found->second.sink, .matcher = {}});
    } else {
      open.emplace(std::move(found->second));
      member.open.erase(found);
      --member.num_open;
    }
  }
  Tell(*open, std::move(delta));
}

// That nothing can follow the first token in a grammar the other side does not know.
void RemoteContexts::Tell(Open& open, Delta delta) {
  const bool ends_by_length = delta.finish == FinishReason::kLength && delta.lease == nullptr;
  const bool is_complete = ends_by_length && delta.token >= 0 && open.matcher &&
                           open.matcher->Advance(delta.token) && !open.matcher->GoesOn();
  if (is_complete) delta.finish = FinishReason::kNone;
  open.sink(std::move(delta));
  if (is_complete) open.sink(EndedBy(FinishReason::kStop));
}

}  // namespace wideload::runtime
