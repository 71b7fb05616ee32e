#include "base/output_path.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

#include "base/error.h"

namespace wideload {
namespace {

constexpr int kMaxLinks = 40;  // as the kernel

bool IsOnProc(int fd) {
  struct statfs info {};
  return ::fstatfs(fd, &info) == 0 && info.f_type == PROC_SUPER_MAGIC;
}

std::string LinkTarget(int folder, const std::string& name) {
  std::array<char, PATH_MAX> text{};
  const ssize_t length = ::readlinkat(folder, name.c_str(), text.data(), text.size());
  return length < 0 ? "" : std::string(text.data(), static_cast<size_t>(length));
}

bool IsNumber(const std::string& text) {
  return !text.empty() && text.size() < 10 &&
         text.find_first_not_of("0123456789") == std::string::npos;
}

}  // namespace

OutputPath::OutputPath(const std::string& path) : path_(path) {
  if (path.empty()) Refuse("the path is empty");
  if (path == "-") {
    stream_ = Descriptor(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0));
    if (!stream_.is_open()) Refuse(std::strerror(errno));
    is_open_stream_ = true;
    return;
  }
  std::string rest = path;
  for (int i = 0; i < kMaxLinks; ++i) {
    const std::optional<std::string> target = Step(rest);
    if (!target) return;
    rest = *target;
  }
  Refuse(std::strerror(ELOOP));
}

std::optional<std::string> OutputPath::Step(const std::string& rest) {
  const size_t slash = rest.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : rest.substr(0, slash + 1);
  name_ = slash == std::string::npos ? rest : rest.substr(slash + 1);
  if (name_.empty() || name_ == "." || name_ == "..") Refuse("is a directory");
  Descriptor next(::openat(folder_.is_open() ? folder_.get() : AT_FDCWD, parent.c_str(),
                           O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!next.is_open()) Refuse(std::strerror(errno));
  folder_ = std::move(next);
  struct stat info {};
  if (::fstatat(folder_.get(), name_.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno != ENOENT) Refuse(std::strerror(errno));
    return std::nullopt;
  }
  if (S_ISDIR(info.st_mode)) Refuse("is a directory");
  if (S_ISLNK(info.st_mode)) {
    if (!IsOnProc(folder_.get())) return LinkTarget(folder_.get(), name_);
    HoldMagicLink();
  } else if (!S_ISREG(info.st_mode)) {
    HoldStream(info);
  } else {
    if (::faccessat(folder_.get(), name_.c_str(), W_OK, AT_EACCESS) != 0)
      Refuse(std::strerror(errno));
    existing_ = info;
  }
  return std::nullopt;
}

// A link of /proc leads to an open file, not to a name. One of this process is the descriptor
// itself: whoever opened it may have written to it and may go on.
void OutputPath::HoldMagicLink() {
  const std::string here = LinkTarget(AT_FDCWD, fmt::format("/proc/self/fd/{}", folder_.get()));
  const bool is_own = here == fmt::format("/proc/{}/fd", ::getpid()) && IsNumber(name_);
  if (!is_own) {
    stream_ = Descriptor(::openat(folder_.get(), name_.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
  } else {
    const int flags = ::fcntl(std::stoi(name_), F_GETFL);
    if (flags >= 0 && (flags & O_ACCMODE) == O_RDONLY) Refuse("is open for reading only");
    stream_ = Descriptor(::fcntl(std::stoi(name_), F_DUPFD_CLOEXEC, 0));
  }
  if (!stream_.is_open()) Refuse(std::strerror(errno));
  is_open_stream_ = true;
}

// Not opened yet: the reader of a pipe would take the end of a mere look for the end of the output.
void OutputPath::HoldStream(const struct stat& info) {
  if (S_ISSOCK(info.st_mode)) Refuse("is a socket");
  stream_ = Descriptor(::openat(folder_.get(), name_.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat held {};
  if (!stream_.is_open() || ::fstat(stream_.get(), &held) != 0) Refuse(std::strerror(errno));
  if (held.st_ino != info.st_ino || held.st_dev != info.st_dev) Refuse("was replaced meanwhile");
  if (::faccessat(AT_FDCWD, fmt::format("/proc/self/fd/{}", stream_.get()).c_str(), W_OK,
                  AT_EACCESS) != 0)
    Refuse(std::strerror(errno));
}

Descriptor OutputPath::OpenStream() const {
  Descriptor opened(is_open_stream_ ? ::fcntl(stream_.get(), F_DUPFD_CLOEXEC, 0)
                                    : ::open(fmt::format("/proc/self/fd/{}", stream_.get()).c_str(),
                                             O_WRONLY | O_CLOEXEC | O_NOCTTY));
  if (!opened.is_open()) Refuse(std::strerror(errno));
  return opened;
}

void OutputPath::Refuse(const std::string& reason) const {
  Throw(ErrorKind::kInvalid, "{}: cannot write: {}", path_.empty() ? "\"\"" : path_, reason);
}

}  // namespace wideload
