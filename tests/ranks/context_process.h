// A context server in a process of its own, for tests.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/descriptor.h"
#include "runtime/context_caches.h"
#include "runtime/engine.h"
#include "runtime/servers/context_server.h"
#include "support/rank_processes.h"
#include "support/test_engine.h"

namespace wideload::testing_support {

// How a server's process ends.
inline constexpr int kEndsWell = 0;
inline constexpr int kEndsAlone = 3;

// A context server, forked: its ranks are threads of that process.
class ContextProcess {
 public:
  ContextProcess(const TestModel& model, const runtime::EngineOptions& options)
      : model_(model), options_(options), job_(FreshJobName()) {
    for (int r = 0; r < options_.num_ranks(); ++r) {
      segments_.push_back(runtime::MakeCacheSegment(model.model->spec(), options_, job_, r));
      options_.cache_memory.push_back(segments_.back().bytes());
    }
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(ends[0]);
      runtime::MessageSocket socket{Descriptor(ends[1])};
      ::_exit(Serve(socket));
    }
    ::close(ends[1]);
    socket_ = std::make_shared<runtime::MessageSocket>(Descriptor(ends[0]));
  }
  ~ContextProcess() { Kill(); }

  void Attach(runtime::ContextCaches& caches) const {
    caches.Attach(model_.model->spec(), runtime::CacheCard::Of(options_, job_));
  }
  std::shared_ptr<runtime::MessageSocket> socket() const { return socket_; }
  void Kill() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, -1), nullptr, 0);
  }
  pid_t pid() const { return pid_; }
  // Its exit code once it ends by itself.
  int End() {
    int status = -1;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  int Serve(runtime::MessageSocket& socket) const {
    try {
      runtime::Engine engine(*model_.model, options_);
      runtime::ContextServer server(engine, socket);
      const bool are_all_there = server.Serve();
      return engine.scheduler().num_held() > 0 ? 4 : are_all_there ? kEndsWell : kEndsAlone;
    } catch (const std::exception&) {
      return 5;
    }
  }

  const TestModel& model_;
  runtime::EngineOptions options_;
  std::string job_;
  std::vector<SharedMemory> segments_;
  std::shared_ptr<runtime::MessageSocket> socket_;
  pid_t pid_ = -1;
};

inline std::vector<std::unique_ptr<ContextProcess>> Contexts(
    size_t count, const TestModel& model, const runtime::EngineOptions& options) {
  std::vector<std::unique_ptr<ContextProcess>> contexts;
  for (size_t i = 0; i < count; ++i)
    contexts.push_back(std::make_unique<ContextProcess>(model, options));
  return contexts;
}

}  // namespace wideload::testing_support
