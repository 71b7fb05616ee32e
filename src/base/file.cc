#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace wideload {
namespace {

std::string Reason() { return std::strerror(errno); }

// Closes on scope exit.
struct FdCloser {
  int fd;
  ~FdCloser() {
    if (fd > STDERR_FILENO) ::close(fd);
  }
};

int OpenForReading(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) Throw(ErrorKind::kNotFound, "{}: no such file", path);
  if (fd < 0) Throw(ErrorKind::kInvalid, "{}: cannot open: {}", path, Reason());
  return fd;
}

// A device, pipe or socket: renaming a file to its name would replace it.
bool IsWrittenInPlace(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

void WriteAll(int fd, const std::string& path, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t written = ::write(fd, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) Throw(ErrorKind::kIo, "{}: cannot write: {}", path, Reason());
    data += written;
    size -= static_cast<size_t>(written);
  }
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const FdCloser file{OpenForReading(path)};
  struct stat info {};
  if (::fstat(file.fd, &info) != 0) Throw(ErrorKind::kIo, "{}: cannot stat: {}", path, Reason());
  if (!S_ISREG(info.st_mode)) Throw(ErrorKind::kInvalid, "{}: is not a regular file", path);
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;
  void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (mapping == MAP_FAILED)
    Throw(ErrorKind::kIo, "{}: cannot map {} bytes: {}", path, size_, Reason());
  data_ = static_cast<const std::byte*>(mapping);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::LetGoOfFirst(size_t num_bytes) const {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t whole_pages = std::min(num_bytes, size_) / page * page;
  if (whole_pages > 0) ::madvise(const_cast<std::byte*>(data_), whole_pages, MADV_DONTNEED);
}

std::string ReadFile(const std::string& path, uint64_t max_bytes) {
  const FdCloser file{path == "-" ? STDIN_FILENO : OpenForReading(path)};
  std::string content;
  char buffer[1 << 16];
  while (true) {
    const ssize_t got = ::read(file.fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EISDIR) Throw(ErrorKind::kInvalid, "{}: is a directory", path);
    if (got < 0) Throw(ErrorKind::kIo, "{}: cannot read: {}", path, Reason());
    if (got == 0) return content;
    content.append(buffer, static_cast<size_t>(got));
    if (content.size() > max_bytes)
      Throw(ErrorKind::kResource, "{}: is larger than the {} bytes allowed here", path, max_bytes);
  }
}

void WriteFileWhole(const std::string& path, std::string_view content) {
  if (path == "-")
    return WriteAll(STDOUT_FILENO, "standard output", content.data(), content.size());
  WholeFileWriter writer(path);
  writer.Append(content);
  writer.Commit();
}

WholeFileWriter::WholeFileWriter(const std::string& path) : path_(path) {
  if (IsDirectory(path)) Throw(ErrorKind::kInvalid, "{}: cannot write: is a directory", path);
  if (!IsWrittenInPlace(path)) temporary_path_ = fmt::format("{}.{}.part", path, ::getpid());
  const std::string& opened = temporary_path_.empty() ? path_ : temporary_path_;
  fd_ = ::open(opened.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) Throw(ErrorKind::kInvalid, "{}: cannot write: {}", path, Reason());
}

WholeFileWriter::~WholeFileWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!temporary_path_.empty()) ::unlink(temporary_path_.c_str());
}

void WholeFileWriter::Append(std::string_view bytes) {
  WriteAll(fd_, path_, bytes.data(), bytes.size());
}

void WholeFileWriter::Append(std::span<const std::byte> bytes) {
  WriteAll(fd_, path_, reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void WholeFileWriter::Commit() {
  if (::fsync(fd_) != 0 && errno != EINVAL)
    Throw(ErrorKind::kIo, "{}: cannot sync: {}", path_, Reason());
  if (!temporary_path_.empty() && ::rename(temporary_path_.c_str(), path_.c_str()) != 0)
    Throw(ErrorKind::kIo, "{}: cannot rename: {}", path_, Reason());
  ::close(std::exchange(fd_, -1));
}

void CheckWritable(const std::string& path) {
  if (path == "-") return;
  if (!IsWrittenInPlace(path))
    const WholeFileWriter probe(path);
  else if (::access(path.c_str(), W_OK) != 0)
    Throw(ErrorKind::kInvalid, "{}: cannot write: {}", path, Reason());
}

bool FileExists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

bool IsDirectory(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

}  // namespace wideload
