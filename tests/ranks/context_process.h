// A context server in a process of its own, for tests.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/descriptor.h"
#include "runtime/context_caches.h"
#include "runtime/engine.h"
#include "runtime/rank.h"
#include "runtime/servers/block_service.h"
#include "runtime/servers/context_server.h"
#include "runtime/servers/remote_contexts.h"
#include "support/rank_processes.h"
#include "support/test_engine.h"

namespace wideload::testing_support {

// Stops a child, all of its threads: the signal alone lets those go on that the kernel has not
// told.
inline void Halt(pid_t pid) {
  ::kill(pid, SIGSTOP);
  EXPECT_EQ(::waitpid(pid, nullptr, WUNTRACED), pid);
}

// How a server's process ends.
inline constexpr int kEndsWell = 0;
inline constexpr int kEndsAlone = 3;

// How generation ranks get at the caches of context ranks.
enum class Way { kMapped, kAsked };

// A context server, forked: its ranks are threads of that process.
class ContextProcess {
 public:
  ContextProcess(const TestModel& model, const runtime::EngineOptions& options,
                 Way way = Way::kMapped)
      : model_(model), options_(options), way_(way), job_(FreshJobName()) {
    for (int r = 0; r < options_.num_ranks() && way_ == Way::kMapped; ++r) {
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
    if (way_ == Way::kMapped) return;
    const auto cards = socket_->Receive().value();
    places_.resize(static_cast<size_t>(options_.num_ranks()), {.is_mapped = false});
    for (size_t r = 0; r < places_.size(); ++r)
      std::memcpy(&places_[r].service, cards.data() + r * sizeof(comm::LifeCard),
                  sizeof(comm::LifeCard));
  }
  ~ContextProcess() { Kill(); }

  // `instead`: of another rank that is to be asked for all.
  void Attach(runtime::ContextCaches& caches, const comm::LifeCard* instead = nullptr) const {
    std::vector<runtime::CachePlace> places = places_;
    for (runtime::CachePlace& place : places)
      if (instead != nullptr) place.service = *instead;
    caches.Attach(model_.model->spec(), runtime::CacheCard::Of(options_, job_), places);
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
  int Serve(runtime::MessageSocket& socket) {
    try {
      std::vector<Buffer> memory;
      std::list<runtime::BlockService> services;
      std::vector<comm::LifeCard> cards;
      for (int r = 0; r < options_.num_ranks() && way_ == Way::kAsked; ++r) {
        const model::ModelSpec& spec = model_.model->spec();
        const Buffer& own = memory.emplace_back(runtime::CacheBytesOf(spec, options_, r));
        options_.cache_memory.emplace_back(own.data(), static_cast<size_t>(own.num_bytes()));
        cards.push_back(services
                            .emplace_back(
                                runtime::BlockService::Source{
                                    .spec = &spec,
                                    .part = runtime::CachePartOf(options_, spec.num_layers(), r),
                                    .shape = runtime::CacheShapeOf(spec, options_, r),
                                    .num_micro_batches = options_.num_micro_batches,
                                    .memory = options_.cache_memory.back()},
                                true)
                            .card());
      }
      if (way_ == Way::kAsked) socket.Send(std::as_bytes(std::span(cards)));
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
  Way way_;
  std::string job_;
  std::vector<SharedMemory> segments_;
  std::vector<runtime::CachePlace> places_;  // of ranks that are asked
  std::shared_ptr<runtime::MessageSocket> socket_;
  pid_t pid_ = -1;
};

inline std::vector<std::unique_ptr<ContextProcess>> Contexts(size_t count, const TestModel& model,
                                                             const runtime::EngineOptions& options,
                                                             Way way = Way::kMapped) {
  std::vector<std::unique_ptr<ContextProcess>> contexts;
  for (size_t i = 0; i < count; ++i)
    contexts.push_back(std::make_unique<ContextProcess>(model, options, way));
  return contexts;
}

// Whether what server i says of itself comes to be so: it says it with its next message but one.
template <class Condition>
bool Becomes(const runtime::RemoteContexts& prompts, size_t i, Condition is_so) {
  const auto no_later = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!is_so(prompts.figures()[i])) {
    if (std::chrono::steady_clock::now() > no_later) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace wideload::testing_support
