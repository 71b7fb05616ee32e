#include "base/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <vector>

#include "base/descriptor.h"

namespace wideload {
namespace {

// Leaves this process no descriptor to open while it lives.
class NoDescriptors {
 public:
  NoDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit limit{.rlim_cur = 64, .rlim_max = before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &limit);
    for (int fd = 0; fd >= 0;) {
      fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
      if (fd >= 0) taken_.emplace_back(fd);
    }
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
  std::vector<Descriptor> taken_;
};

TEST(IsAlive, TakesNobodyForDeadWhomItCannotAskAbout) {
  const ProcessStamp self = ThisProcess();
  ASSERT_TRUE(IsAlive(self));
  {
    const NoDescriptors none;
    EXPECT_TRUE(IsAlive(self));
    const ProcessWatch watch(self);
    EXPECT_FALSE(watch.HasEnded());
  }
  EXPECT_TRUE(IsAlive(self));
  EXPECT_FALSE(IsAlive({.pid = self.pid, .start_ticks = self.start_ticks + 1}));
}

}  // namespace
}  // namespace wideload
