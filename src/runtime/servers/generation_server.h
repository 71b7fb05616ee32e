// A server that generates for a front door in another process: takes requests whose prompts are
// computed from its connection, fetches their blocks from the context servers' caches, and tells
// what it generates. On the leader of the server's ranks.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/wait.h"
#include "grammar/grammar_cache.h"
#include "runtime/context_caches.h"
#include "runtime/engine.h"
#include "runtime/servers/message_socket.h"
#include "runtime/servers/server_messages.h"

namespace wideload::runtime {

class GenerationServer {
 public:
  // Grammars of the model's vocabulary; asked for the first time when a request has one.
  using Grammars = std::function<grammar::GrammarCache&()>;
  // `engine`, of which nothing else is asked, `caches` of all context servers and `front`, the
  // connection, must outlive it. `grammars` is called on one thread, `pending_signal` as
  // ContextServer's.
  GenerationServer(Engine& engine, const ContextCaches& caches, MessageSocket& front,
                   Grammars grammars, std::function<int()> pending_signal = {});
  ~GenerationServer();

  // Serves on the engine's thread until the front door says that no request follows. Returns
  // whether all servers were there then. Errors: as Engine::Step; kRunFailed when the front door is
  // gone or not understood.
  bool Serve();

 private:
  void Receive();
  void TakeGrammar(ServerMessage& message);
  void TakeInbox();
  void Begin(ServerMessage message);
  void Note(PromptId told_id, RequestId id);
  void TellEvents();
  void TellState();
  void Send(const ServerMessage& message);

  Engine& engine_;
  const ContextCaches& caches_;
  MessageSocket& front_;
  const Grammars grammars_;
  std::function<int()> pending_signal_;
  EventWord wake_;
  uint32_t seen_ = 0;  // of wake_, when the inbox was taken last
  std::mutex mutex_;   // guards the inbox
  std::vector<ServerMessage> inbox_;
  std::atomic<bool> is_end_said_{false};
  std::atomic<bool> are_all_there_{false};
  std::atomic<bool> is_front_gone_{false};
  std::span<const Event> events_;  // of the last iteration, that have not been told
  std::map<RequestId, PromptId> told_ids_;
  std::map<PromptId, RequestId> own_ids_;
  int told_signal_ = 0;
  EngineFigures told_;
  std::chrono::steady_clock::time_point told_at_{};
  std::jthread reader_;
};

}  // namespace wideload::runtime
