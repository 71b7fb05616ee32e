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
#include "base/mapping_table.h"
#include "base/memory.h"

namespace wideload {
namespace {

std::string Reason() { return std::strerror(errno); }

// `flags`: for open, beside those that every file has.
Descriptor OpenForReading(const std::string& path, int flags = 0) {
  Descriptor file(path == "-" ? ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0)
                              : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | flags));
  if (!file.is_open() && errno == ENOENT) Throw(ErrorKind::kNotFound, "{}: no such file", path);
  if (!file.is_open()) Throw(ErrorKind::kInvalid, "{}: cannot open: {}", path, Reason());
  return file;
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Descriptor file = OpenForReading(path, O_NONBLOCK);  // a pipe has no writer, perhaps
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) Throw(ErrorKind::kIo, "{}: cannot stat: {}", path, Reason());
  if (!S_ISREG(info.st_mode)) Throw(ErrorKind::kInvalid, "{}: is not a regular file", path);
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;
  void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (mapping == MAP_FAILED)
    Throw(ErrorKind::kIo, "{}: cannot map {} bytes: {}", path, size_, Reason());
  data_ = static_cast<const std::byte*>(mapping);
  entry_ = AddMapping(bytes(), path);
}

MappedFile::~MappedFile() {
  RemoveMapping(entry_);
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::GiveBackPages() const {
  if (size_ > 0) ::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      entry_(std::exchange(other.entry_, -1)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(entry_, other.entry_);
  return *this;
}

void MappedFile::LetGoOfFirst(size_t num_bytes) const {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t whole_pages = std::min(num_bytes, size_) / page * page;
  if (whole_pages > 0) ::madvise(const_cast<std::byte*>(data_), whole_pages, MADV_DONTNEED);
}

std::string ReadFile(const std::string& path, uint64_t max_bytes) {
  const Descriptor file = OpenForReading(path);
  struct stat info {};
  std::string content;
  if (::fstat(file.get(), &info) == 0 && S_ISREG(info.st_mode))
    content.reserve(std::min(static_cast<uint64_t>(info.st_size), max_bytes));
  char buffer[1 << 16];
  while (true) {
    const ssize_t got = ::read(file.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EISDIR) Throw(ErrorKind::kInvalid, "{}: is a directory", path);
    if (got < 0) Throw(ErrorKind::kIo, "{}: cannot read: {}", path, Reason());
    if (got == 0) return content;
    if (static_cast<uint64_t>(got) > max_bytes - content.size())
      Throw(ErrorKind::kResource, "{}: is larger than the {} allowed here", path,
            FormatBytes(max_bytes));
    content.append(buffer, static_cast<size_t>(got));
  }
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
