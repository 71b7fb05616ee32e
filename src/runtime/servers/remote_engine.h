// A generation server in another process, seen from the front door that gives it requests whose
// prompts are computed: one connection and one thread that reads it. When the server is gone Step
// says so, and its requests are lost.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "runtime/servers/message_socket.h"
#include "runtime/servers/server_messages.h"
#include "runtime/token_engine.h"

namespace wideload::runtime {

class RemoteEngine final : public TokenEngine {
 public:
  // Starts the thread. `name` is the server's, for people: "generation server 1". `on_signal` is
  // told that a signal has asked it to end; may be empty; on any thread.
  RemoteEngine(std::unique_ptr<MessageSocket> socket, std::string name,
               std::function<void(int)> on_signal = {});
  // Unless Stop was called the server finds the front door gone.
  ~RemoteEngine() override;

  // Nobody is told the logits of its prompt, nor when it was admitted.
  RequestId Submit(Request request) override;
  RequestId SubmitComputed(Request request, ComputedPrompt prompt) override;
  void Cancel(RequestId id) override;
  // A lease lasts here until the server has let go of it: it may be reading.
  bool HasLease(RequestId id) const override;
  void DropLeases() override;
  std::optional<CachedSequence> Kept(RequestId /*id*/) const override { return std::nullopt; }
  // What has come since. Errors: kRunFailed when the server is gone.
  std::span<const Event> Step(const std::function<void()>& meanwhile) override;
  bool idle() const override;
  void SetLogitsSink(LogitsSink /*sink*/) override {}
  std::span<const RequestId> admitted() const override { return {}; }
  EngineFigures figures() const override;
  Engine* local() override { return nullptr; }
  bool only_waits() const override;
  void SetWake(const std::function<void()>& wake) override;

  // Any thread. Whether the connection stands.
  bool is_gone() const { return is_gone_; }
  // Tells the server that no request follows, and whether no server is gone; waits until it is.
  void Stop(bool are_all_there);

 private:
  void Receive();
  void Take(ServerMessage message);
  void Wake();

  std::unique_ptr<MessageSocket> socket_;
  const std::string name_;
  const std::function<void(int)> on_signal_;
  std::atomic<bool> is_gone_{false};
  std::atomic<bool> is_stopping_{false};
  RequestId next_id_ = 0;
  int64_t num_open_ = 0;       // of those that this thread knows not to have ended
  std::vector<Event> events_;  // that Step has returned
  mutable std::mutex mutex_;   // guards what follows
  std::vector<Event> new_events_;
  std::map<RequestId, std::shared_ptr<const PromptLease>> leases_;
  EngineFigures figures_;
  std::function<void()> wake_;
  std::jthread reader_;
};

}  // namespace wideload::runtime
