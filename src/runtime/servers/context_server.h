// A server that computes prompts for a generation server in another process: takes them from its
// connection, keeps their blocks until they are fetched, and tells what came of them. On the leader
// of the server's ranks.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "runtime/engine_loop.h"
#include "runtime/servers/message_socket.h"
#include "runtime/servers/server_messages.h"

namespace wideload::runtime {

class ContextServer {
 public:
  // `engine`, of which nothing else is asked, and `generation`, the connection, must outlive it.
  // `pending_signal`: the signal that has asked this process to end, or 0; may be empty.
  ContextServer(Engine& engine, MessageSocket& generation,
                std::function<int()> pending_signal = {});
  ~ContextServer();

  // Serves on the engine's thread until the generation server says that no prompt follows. Returns
  // whether all servers were there then. Errors: as Engine::Step, after the other side has been
  // told; kRunFailed when the generation server is gone.
  bool Serve();

 private:
  void Receive();
  void Take(ServerMessage message);
  void Begin(PromptId id, Job job);
  void Tell(PromptId id, Delta delta);
  void TellState();

  MessageSocket& generation_;
  std::function<int()> pending_signal_;
  EngineLoop loop_;
  std::mutex mutex_;  // guards the next two
  std::map<PromptId, JobId> jobs_;
  std::map<PromptId, std::shared_ptr<const PromptLease>> leases_;  // not fetched yet
  std::atomic<bool> is_end_said_{false};
  std::atomic<bool> are_all_there_{false};
  std::atomic<bool> is_generation_gone_{false};
  int64_t num_prompts_ = 0;  // computed
  int told_signal_ = 0;
  ContextFigures told_;
  std::chrono::steady_clock::time_point told_at_{};
  std::jthread reader_;
};

}  // namespace wideload::runtime
