#include "support/rank_processes.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <new>

#include "comm/shm/shm_communicator.h"

namespace wideload {
namespace {

std::span<std::byte> counter_memory;  // not given out; empty: every counter has its own

void* SharedBytes(size_t count) {
  void* const memory =
      ::mmap(nullptr, count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  WIDELOAD_CHECK(memory != MAP_FAILED, "mmap of {} bytes: {}", count, std::strerror(errno));
  return memory;
}

// The first error of the ranks, as RunRanks reports it: that of a rank that found a fault itself
// before that of one that was told.
struct FirstErrors {
  static constexpr size_t kTextBytes = 2000;
  struct Text {
    std::atomic<uint32_t> is_taken;
    char text[kTextBytes];
  };
  Text found;
  Text told;
};

void Note(FirstErrors& errors, const Error& error) {
  const auto* lost = dynamic_cast<const comm::PeerLost*>(&error);
  FirstErrors::Text& text = lost != nullptr && lost->details().is_told ? errors.told : errors.found;
  if (text.is_taken.exchange(1) != 0) return;
  const std::string what = error.what();
  text.text[what.copy(text.text, FirstErrors::kTextBytes - 1)] = '\0';
}

[[noreturn]] void RunChild(const comm::ShmGroupOptions& shm, const comm::GroupOptions& options,
                           const std::function<void(comm::Communicator&)>& body,
                           FirstErrors& errors) {
  try {
    comm::ShmCommunicator communicator(shm, options);
    try {
      body(communicator);
    } catch (const Error& error) {
      communicator.Abort(error.what());
      Note(errors, error);
    }
  } catch (const Error& error) {
    Note(errors, error);
  }
  std::fflush(nullptr);
  ::_exit(testing::Test::HasFailure() ? 1 : 0);
}

}  // namespace

SharedCounter::SharedCounter() {
  if (counter_memory.empty()) {
    value_ = new (SharedBytes(sizeof(*value_))) std::atomic<uint32_t>(0);
    return;
  }
  WIDELOAD_CHECK(counter_memory.size() > sizeof(*value_), "no memory for more counters");
  value_ = reinterpret_cast<std::atomic<uint32_t>*>(counter_memory.data());
  counter_memory = counter_memory.subspan(sizeof(*value_));
}

SharedCounter::~SharedCounter() {
  if (counter_memory.empty()) ::munmap(value_, sizeof(*value_));
}

void SharedCounter::TakeFrom(std::span<std::byte> memory) { counter_memory = memory; }

std::string FreshJobName() {
  static int count = 0;
  return fmt::format("test-{}-{}", ::getpid(), ++count);
}

ProcessOutcome RunRankProcesses(int num_ranks, comm::GroupOptions options, const std::string& job,
                                const std::function<void(comm::Communicator&)>& body) {
  auto* const errors = new (SharedBytes(sizeof(FirstErrors))) FirstErrors();
  std::vector<pid_t> children;
  std::fflush(nullptr);
  for (int r = 0; r < num_ranks; ++r) {
    children.push_back(::fork());
    WIDELOAD_CHECK(children.back() >= 0, "fork: {}", std::strerror(errno));
    if (children.back() == 0)
      RunChild({.job = job, .rank = r, .num_ranks = num_ranks}, options, body, *errors);
  }
  ProcessOutcome outcome;
  for (int r = 0; r < num_ranks; ++r) {
    int status = 0;
    WIDELOAD_CHECK(::waitpid(children[static_cast<size_t>(r)], &status, 0) > 0, "waitpid: {}",
                   std::strerror(errno));
    if (WIFSIGNALED(status)) outcome.killed_ranks.push_back(r);
    if (!WIFSIGNALED(status)) {
      EXPECT_EQ(WEXITSTATUS(status), 0) << "rank " << r << " failed (above)";
    }
  }
  outcome.ranks.error = errors->found.is_taken.load() != 0 ? errors->found.text : errors->told.text;
  ::munmap(errors, sizeof(FirstErrors));
  return outcome;
}

}  // namespace wideload
