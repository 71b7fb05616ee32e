#include "runtime/engine_thread.h"

#include <utility>

#include "base/log.h"
#include "base/thread_pool.h"

namespace wideload::runtime {
namespace {

constexpr std::chrono::milliseconds kEngineRest{100};  // a wake-up comes at once
constexpr std::chrono::milliseconds kLeaseRest{2};

}  // namespace

EngineThread::EngineThread(Engine& engine, const tokenizer::Tokenizer* tokenizer, std::string name,
                           std::function<void()> on_failure)
    : loop_(engine, tokenizer),
      name_(std::move(name)),
      on_failure_(std::move(on_failure)),
      num_open_(std::make_shared<std::atomic<int64_t>>(0)) {}

EngineThread::EngineThread(TokenEngine& engine, const tokenizer::Tokenizer* tokenizer,
                           std::string name, std::function<void()> on_failure)
    : loop_(engine, tokenizer),
      name_(std::move(name)),
      on_failure_(std::move(on_failure)),
      num_open_(std::make_shared<std::atomic<int64_t>>(0)) {}

EngineThread::~EngineThread() { Stop(); }

void EngineThread::Start() {
  thread_ = StartThread(name_, [this] { Run(); });
}

JobId EngineThread::Submit(Job job) {
  ++*num_open_;
  job.sink = [sink = std::move(job.sink), num_open = num_open_](Delta delta) {
    if (delta.is_last()) --*num_open;
    sink(std::move(delta));
  };
  return loop_.Submit(std::move(job));
}

void EngineThread::AskToStop() {
  is_stopping_ = true;
  loop_.Wake();
}

void EngineThread::Stop() {
  AskToStop();
  if (thread_.joinable()) thread_.join();
}

void EngineThread::EndAll(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    end_reason_ = reason;
  }
  if (!thread_.joinable()) return loop_.EndAll(reason);
  const uint32_t wanted = ++num_ends_asked_;
  loop_.Wake();
  WaitFor(
      num_ends_done_, WaitLadder::Oversubscribed(),
      [&](uint32_t done) { return static_cast<int32_t>(done - wanted) >= 0; }, [] { return true; });
}

std::exception_ptr EngineThread::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

// Requests may wait for blocks that leases hold.
void EngineThread::Rest(int64_t& num_iterations) {
  const int64_t num_before = std::exchange(num_iterations, loop_.figures().num_iterations);
  if (loop_.idle())
    loop_.Wait(kEngineRest);
  else if (num_before == num_iterations)
    loop_.Wait(kLeaseRest);
}

// Jobs may still come to an engine that has ended: they are told so.
void EngineThread::Run() {
  int64_t num_iterations = 0;
  const auto end_all = [&] {
    const uint32_t num_asked = num_ends_asked_;
    std::string reason;
    {
      const std::lock_guard lock(mutex_);
      reason = end_reason_;
    }
    loop_.EndAll(reason);
    num_ends_done_.Publish(num_asked);
  };
  while (!is_stopping_) {
    if (num_ends_asked_ == num_ends_done_.Load()) Rest(num_iterations);
    if (loop_.has_ended() || num_ends_asked_ != num_ends_done_.Load()) {
      end_all();
      continue;
    }
    try {
      loop_.Step();
    } catch (const std::exception& failure) {
      {
        const std::lock_guard lock(mutex_);
        failure_ = std::current_exception();
      }
      LogWarn("{} server has ended: {}", name_, failure.what());
      if (on_failure_) on_failure_();
    }
  }
  end_all();
}

}  // namespace wideload::runtime
