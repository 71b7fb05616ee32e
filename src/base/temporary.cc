#include "base/temporary.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace wideload {
namespace {

constexpr std::string_view kPrefix = ".wideload-";
constexpr std::string_view kSuffix = ".part";
constexpr size_t kDigits = 16;
constexpr size_t kNameSize = kPrefix.size() + kDigits + kSuffix.size();

std::string NewName() {
  uint64_t number = 0;
  if (::getrandom(&number, sizeof(number), 0) != static_cast<ssize_t>(sizeof(number)))
    Throw(ErrorKind::kIo, "no random numbers from the system: {}", std::strerror(errno));
  return fmt::format("{}{:016x}{}", kPrefix, number, kSuffix);
}

// What has a name now, for the handler of a signal.
struct Slot {
  std::atomic<bool> is_taken{false};
  std::atomic<bool> is_named{false};  // publishes the rest
  int folder = -1;
  char name[kNameSize + 1] = {};
};
std::array<Slot, 16> g_slots;

int ClaimSlot(int folder, const std::string& name) {
  for (size_t i = 0; i < g_slots.size(); ++i) {
    Slot& slot = g_slots[i];
    if (slot.is_taken.exchange(true)) continue;
    slot.folder = folder;
    std::memcpy(slot.name, name.c_str(), name.size() + 1);
    slot.is_named.store(true);
    return static_cast<int>(i);
  }
  return -1;  // more at once than anyone has: the next writer removes what a signal leaves
}

void ReleaseSlot(int& index) {
  if (index < 0) return;
  Slot& slot = g_slots[static_cast<size_t>(std::exchange(index, -1))];
  slot.is_named.store(false);
  slot.is_taken.store(false);
}

// As the system call getdents64 gives it.
struct RawEntry {
  uint64_t inode;
  int64_t offset;
  uint16_t size;
  uint8_t type;
  char name[];
};

// Calls visit(name) for each entry of an open folder. No memory is allocated, so that the handler
// of a signal can use it.
template <class Visit>
void ForEachEntry(int folder, Visit visit) noexcept {
  alignas(RawEntry) char buffer[4096];
  while (true) {
    const auto got = ::syscall(SYS_getdents64, folder, buffer, sizeof(buffer));
    if (got <= 0) return;
    for (long at = 0; at < got;) {
      const auto* const entry = reinterpret_cast<const RawEntry*>(buffer + at);
      visit(static_cast<const char*>(entry->name));
      at += entry->size;
    }
  }
}

bool IsDots(const char* name) {
  return std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0;
}

// A file, or a folder of files.
void Remove(int folder, const char* name) noexcept {
  if (::unlinkat(folder, name, 0) == 0 || errno == ENOENT) return;
  const int self = ::openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (self < 0) return;
  ForEachEntry(self, [self](const char* entry) {
    if (!IsDots(entry)) ::unlinkat(self, entry, 0);
  });
  ::close(self);
  ::unlinkat(folder, name, AT_REMOVEDIR);
}

bool IsSame(int folder, const char* name, int fd) {
  struct stat by_name {};
  struct stat by_fd {};
  return ::fstatat(folder, name, &by_name, AT_SYMLINK_NOFOLLOW) == 0 && ::fstat(fd, &by_fd) == 0 &&
         by_name.st_ino == by_fd.st_ino && by_name.st_dev == by_fd.st_dev;
}

// The writer holds a lock, which the kernel drops when it ends: this also holds between containers
// and hosts that share the folder but do not see each other's processes.
void RemoveIfDead(int folder, const char* name) {
  struct stat info {};
  if (::fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) != 0 || info.st_uid != ::geteuid() ||
      !(S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)))
    return;
  const Descriptor self(
      ::openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (self.is_open() && ::flock(self.get(), LOCK_EX | LOCK_NB) == 0 &&
      IsSame(folder, name, self.get()))
    Remove(folder, name);
}

void RemoveLeftovers(const Descriptor& folder) {
  const Descriptor listing(::openat(folder.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!listing.is_open()) return;
  ForEachEntry(listing.get(), [&](const char* name) {
    if (IsTemporaryName(name)) RemoveIfDead(folder.get(), name);
  });
}

}  // namespace

Descriptor OpenNewFile(const Descriptor& folder, const std::string& name, mode_t mode) {
  return Descriptor(::openat(folder.get(), name.c_str(),
                             O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
}

bool IsTemporaryName(std::string_view name) {
  return name.size() == kNameSize && name.starts_with(kPrefix) && name.ends_with(kSuffix) &&
         name.substr(kPrefix.size(), kDigits).find_first_not_of("0123456789abcdef") ==
             std::string_view::npos;
}

void RemoveTemporaries() noexcept {
  for (const Slot& slot : g_slots)
    if (slot.is_named.load()) Remove(slot.folder, slot.name);
}

Temporary::Temporary(Kind kind, const Descriptor& folder, mode_t mode, const std::string& path)
    : kind_(kind), folder_(folder), path_(path) {
  RemoveLeftovers(folder);
  if (kind == Kind::kFolder || !MakeNameless(mode)) MakeNamed(mode);
}

// Leaves nothing behind however the process ends. False where the file system cannot do it.
bool Temporary::MakeNameless(mode_t mode) {
  self_ = Descriptor(::openat(folder_.get(), ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, mode));
  if (!self_.is_open()) {
    if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT) return false;
    Throw(ErrorKind::kInvalid, "{}: cannot write: {}", path_, std::strerror(errno));
  }
  const std::string link = fmt::format("/proc/self/fd/{}", self_.get());
  if (::access(link.c_str(), F_OK) == 0 && ::flock(self_.get(), LOCK_EX | LOCK_NB) == 0)
    return true;
  self_ = Descriptor();
  return false;
}

// Another writer that cleans up may take a file for a dead one's until it is locked.
void Temporary::MakeNamed(mode_t mode) {
  constexpr int kTries = 16;
  for (int i = 0; i < kTries; ++i) {
    MakeOnce(mode);
    if (::flock(self_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) continue;
    if (HasName()) return;
  }
  Fail("cannot make a temporary file beside it");
}

void Temporary::MakeOnce(mode_t mode) {
  ReleaseSlot(slot_);
  name_ = NewName();
  self_ = Descriptor();
  const bool is_folder = kind_ == Kind::kFolder;
  if (!is_folder)
    self_ = OpenNewFile(folder_, name_, mode);
  else if (::mkdirat(folder_.get(), name_.c_str(), mode) == 0)
    self_ = Descriptor(
        ::openat(folder_.get(), name_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!self_.is_open())
    Throw(ErrorKind::kInvalid, "{}: cannot write: {}", path_, std::strerror(errno));
  slot_ = ClaimSlot(folder_.get(), name_);
}

bool Temporary::HasName() const {
  return !name_.empty() && IsSame(folder_.get(), name_.c_str(), self_.get());
}

Temporary::~Temporary() {
  if (HasName()) Remove(folder_.get(), name_.c_str());
  ReleaseSlot(slot_);
}

void Temporary::TakeName() {
  if (!name_.empty()) return;
  name_ = NewName();
  slot_ = ClaimSlot(folder_.get(), name_);
  const std::string self = fmt::format("/proc/self/fd/{}", self_.get());
  if (::linkat(AT_FDCWD, self.c_str(), folder_.get(), name_.c_str(), AT_SYMLINK_FOLLOW) != 0)
    Fail("cannot be made");
}

void Temporary::MoveTo(const std::string& final_name) {
  TakeName();
  if (::renameat(folder_.get(), name_.c_str(), folder_.get(), final_name.c_str()) == 0)
    name_.clear();
  else if (kind_ == Kind::kFolder && (errno == ENOTEMPTY || errno == EEXIST))
    Exchange(final_name);
  else
    Fail("cannot rename");
  ReleaseSlot(slot_);
}

// The old folder gets this one's name and goes.
void Temporary::Exchange(const std::string& final_name) {
  if (::renameat2(folder_.get(), name_.c_str(), folder_.get(), final_name.c_str(),
                  RENAME_EXCHANGE) != 0)
    Fail("cannot replace");
  Remove(folder_.get(), name_.c_str());
  name_.clear();
}

void Temporary::Fail(const char* what) const {
  Throw(ErrorKind::kIo, "{}: {}: {}", path_, what, std::strerror(errno));
}

}  // namespace wideload
