// Context servers in other processes, seen from the generation server for which they compute
// prompts: one connection and one thread for each. A server that is gone costs the prompts on it;
// the others go on.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "grammar/token_grammar.h"
#include "runtime/context_caches.h"
#include "runtime/prompt_computer.h"
#include "runtime/server_router.h"
#include "runtime/servers/message_socket.h"
#include "runtime/servers/server_messages.h"

namespace wideload::runtime {

class RemoteContexts final : public PromptComputer {
 public:
  // What is there before the first prompt.
  struct Parts {
    std::vector<std::shared_ptr<MessageSocket>> sockets;  // [servers], as many as caches has
    const ContextCaches* caches = nullptr;                // must outlive this and all leases
    int64_t vocab_size = 0;
    ServerRouting routing = ServerRouting::kRoundRobin;
    ServerRouter::Capacity capacity = {};  // of each
    // Told that a signal has asked a context server to end; may be empty. On any thread.
    std::function<void(int)> on_signal = {};
  };
  // Starts a thread for each connection.
  explicit RemoteContexts(Parts parts);
  // Unless Stop was called the servers find the generation server gone.
  ~RemoteContexts() override;

  // Where no server is left the sink gets an error.
  std::function<void()> Begin(Job job) override;

  // Any thread.
  size_t size() const { return members_.size(); }
  // Whether the connection of server i stands.
  bool is_running(size_t i) const { return !members_[i]->is_gone; }
  bool is_any_running() const;
  // What each server has said last.
  std::vector<ContextFigures> figures() const override;
  // Tells the servers that no prompt follows, and waits until all are gone. Returns whether none
  // was before, nor any other server that the caller knows of.
  bool Stop(bool are_others_there = true);

 private:
  // A prompt under way there.
  struct Open {
    DeltaSink sink;
    std::optional<grammar::TokenMatcher> matcher;  // with a grammar
  };
  struct Member {
    std::shared_ptr<MessageSocket> socket;  // shared with leases
    std::atomic<bool> is_gone{false};
    std::atomic<int64_t> num_open{0};
    mutable std::mutex mutex;  // guards the next three
    std::map<PromptId, Open> open;
    PromptId next_id = 0;
    ContextFigures figures;
    std::jthread reader;
  };
  Member* Choose(const Request& request);
  void Receive(size_t index);
  void Take(size_t index, ServerMessage message);
  static void Tell(Open& open, Delta delta);
  void EndAll(Member& member);

  Parts parts_;
  std::vector<std::unique_ptr<Member>> members_;
  ServerRouter router_;
  std::atomic<bool> is_stopping_{false};
};

}  // namespace wideload::runtime
