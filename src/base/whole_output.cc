#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace wideload {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void FailToWrite(const std::string& path) {
  Throw(ErrorKind::kIo, "{}: cannot write: {}", path == "-" ? "standard output" : path,
        std::strerror(errno));
}

void WriteAll(int fd, const std::string& path, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t written = ::write(fd, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) FailToWrite(path);
    data += written;
    size -= static_cast<size_t>(written);
  }
}

constexpr mode_t kOfAnyFile = 0666;  // the process's umask takes away
constexpr mode_t kOwnersAlone = 0600;
constexpr mode_t kOfAnyFolder = 0777;

}  // namespace

void WriteFileWhole(const std::string& path, std::string_view content) {
  WholeFileWriter writer(path);
  writer.Append(content);
  writer.Commit();
}

WholeFileWriter::WholeFileWriter(const std::string& path) : place_(path) {
  if (place_.is_stream()) {
    stream_ = place_.OpenStream();
    fd_ = stream_.get();
  } else {
    temporary_.emplace(Temporary::Kind::kFile, place_.folder(),
                       place_.existing() ? kOwnersAlone : kOfAnyFile, path);
    fd_ = temporary_->fd();
  }
}

void WholeFileWriter::Append(std::string_view bytes) {
  WriteAll(fd_, place_.path(), bytes.data(), bytes.size());
}

void WholeFileWriter::Append(std::span<const std::byte> bytes) {
  Append({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

void WholeFileWriter::WriteAt(int64_t offset, std::span<const std::byte> bytes) {
  WIDELOAD_CHECK(!is_stream(), "{}: is a stream, which has no offsets", place_.path());
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) FailToWrite(place_.path());
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += written;
  }
}

// The owner only where that is allowed, as for root.
void WholeFileWriter::KeepMode() const {
  const std::optional<struct stat>& before = place_.existing();
  if (!before) return;
  if (::fchown(fd_, before->st_uid, before->st_gid) != 0 && errno != EPERM)
    FailToWrite(place_.path());
  if (::fchmod(fd_, before->st_mode & kOfAnyFolder) != 0) FailToWrite(place_.path());
}

void WholeFileWriter::Commit() {
  if (::fsync(fd_) != 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP)
    Throw(ErrorKind::kIo, "{}: cannot sync: {}", place_.path(), std::strerror(errno));
  if (!temporary_) return;
  KeepMode();
  temporary_->MoveTo(place_.name());
}

namespace {

// Where a folder goes, with links followed and without a slash at the end. Errors: kInvalid.
fs::path PlaceOfFolder(const std::string& path) {
  std::error_code error;
  fs::path place = fs::absolute(path, error);
  while (!place.has_filename() && place.has_parent_path() && place != place.parent_path())
    place = place.parent_path();  // "folder/"
  const bool exists = !error && fs::exists(place, error);
  if (!error) place = exists ? fs::canonical(place, error) : fs::weakly_canonical(place, error);
  if (!error && !place.has_filename()) error = std::make_error_code(std::errc::is_a_directory);
  if (error) Throw(ErrorKind::kInvalid, "{}: cannot write: {}", path, error.message());
  return place;
}

}  // namespace

WholeFolderWriter::WholeFolderWriter(const std::string& path) {
  const fs::path place = PlaceOfFolder(path);
  parent_ = place.parent_path().string();
  name_ = place.filename().string();
  folder_ = Descriptor(::open(parent_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder_.is_open())
    Throw(ErrorKind::kInvalid, "{}: cannot write: {}", path, std::strerror(errno));
  struct stat before {};
  const bool exists = ::fstatat(folder_.get(), name_.c_str(), &before, AT_SYMLINK_NOFOLLOW) == 0;
  temporary_.emplace(Temporary::Kind::kFolder, folder_,
                     exists ? before.st_mode & kOfAnyFolder : kOfAnyFolder, path);
}

std::string WholeFolderWriter::PathOf(const std::string& name) const {
  return fmt::format("{}/{}/{}", parent_, temporary_->name(), name);
}

void WholeFolderWriter::Commit() { temporary_->MoveTo(name_); }

void CheckFolderWritable(const std::string& path) {
  const std::string parent = PlaceOfFolder(path).parent_path().string();
  if (!IsDirectory(parent) || ::access(parent.c_str(), W_OK) != 0)
    Throw(ErrorKind::kInvalid, "{}: cannot write: {} must be a folder that can be written", path,
          parent);
}

void CheckWritable(const std::string& path) {
  if (const OutputPath place(path); !place.is_stream())
    const Temporary probe(Temporary::Kind::kFile, place.folder(), kOwnersAlone, path);
}

}  // namespace wideload
