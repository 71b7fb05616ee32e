#include "base/shared_memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/descriptor.h"
#include "base/error.h"
#include "base/memory.h"

namespace wideload {
namespace {

constexpr int64_t kHeaderBytes = 4096;
constexpr uint64_t kMagic = 0x6D687364616F6C77;  // "wloadshm"
constexpr uint32_t kVersion = 1;
constexpr size_t kMaxNameLength = 200;
constexpr std::string_view kFilePrefix = "wideload.";

// First page of the file; written before the file has a name.
struct Header {
  uint64_t magic = 0;
  uint32_t version = 0;
  int32_t owner_pid = 0;
  uint64_t owner_start_ticks = 0;
  int64_t num_bytes = 0;
  char job[kMaxNameLength + 1] = {};
};

// Users of a segment hold a shared lock on its file, which the kernel drops when they end; who
// removes it must get the exclusive one. That also holds between containers that share the folder
// but do not see each other's processes.
bool IsWord(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-';
  });
}

std::string PathOf(const SegmentName& name) {
  const std::string& word = name.file.empty() ? name.name : name.file;
  if (!IsWord(name.job) || !IsWord(word) || name.job.size() + word.size() > kMaxNameLength)
    Throw(ErrorKind::kInvalid,
          "the shared memory segment '{}' of job '{}': names are letters, digits, '_' and '-', "
          "together at most {}",
          word, name.job, kMaxNameLength);
  if (!name.file.empty()) return fmt::format("{}/{}", name.folder, name.file);
  return fmt::format("{}/{}{}.{}", name.folder, kFilePrefix, name.job, name.name);
}

// The header of a whole segment, else one with magic 0.
Header ReadHeader(int fd) {
  Header header;
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < kHeaderBytes ||
      ::pread(fd, &header, sizeof(header), 0) != static_cast<ssize_t>(sizeof(header)) ||
      header.magic != kMagic)
    return {};
  header.job[kMaxNameLength] = '\0';
  return header;
}

ProcessStamp OwnerOf(const Header& header) {
  return {.pid = header.owner_pid, .start_ticks = header.owner_start_ticks};
}

bool HasThatFile(const std::string& path, int fd) {
  struct stat by_name {};
  struct stat by_fd {};
  return ::stat(path.c_str(), &by_name) == 0 && ::fstat(fd, &by_fd) == 0 &&
         by_name.st_ino == by_fd.st_ino && by_name.st_dev == by_fd.st_dev;
}

// Removes the file if it is a segment of a dead owner that nobody uses. With the exclusive lock
// held nobody else can have replaced the file between the look and the unlink; nobody replaces one
// of `own_job`, whose names are of one run, so there the lock is not needed.
bool RemoveIfOwnerIsDead(const std::string& path, std::string_view own_job = {}) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.get() < 0) return false;
  const Header header = ReadHeader(file.get());
  if (header.magic != kMagic) return false;
  const bool is_own = !own_job.empty() && std::string_view(header.job).starts_with(own_job);
  if (!is_own && ::flock(file.get(), LOCK_EX | LOCK_NB) != 0) return false;
  return !IsAlive(OwnerOf(header)) && HasThatFile(path, file.get()) && ::unlink(path.c_str()) == 0;
}

std::vector<std::string> FilesOf(const std::string& folder) {
  std::vector<std::string> paths;
  DIR* const listing = ::opendir(folder.c_str());
  if (listing == nullptr) return paths;
  while (const dirent* const entry = ::readdir(listing))
    paths.push_back(fmt::format("{}/{}", folder, entry->d_name));
  ::closedir(listing);
  std::ranges::sort(paths);
  return paths;
}

[[noreturn]] void ThrowNameInUse(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  const Header header = file.get() >= 0 ? ReadHeader(file.get()) : Header{};
  if (header.magic != kMagic)
    Throw(ErrorKind::kResource,
          "{} exists and is no segment of wideload; remove it or choose another job name", path);
  Throw(ErrorKind::kResource,
        "{} is in use by the living job '{}' (process {}); choose another job name or end that job",
        path, header.job, header.owner_pid);
}

// Reserves the pages of the file. An unreserved page would end the process with SIGBUS at its first
// write.
void Reserve(int fd, const std::string& path, const std::string& folder, int64_t num_bytes) {
  int error = EINTR;
  while (error == EINTR) error = ::posix_fallocate(fd, 0, num_bytes);
  if (error == 0) return;
  struct statvfs space {};
  if (error == EFBIG || error == EINVAL || ::fstatvfs(fd, &space) != 0 ||
      (error != ENOSPC && error != ENOMEM && error != EDQUOT))
    Throw(ErrorKind::kIo, "{}: cannot reserve {} bytes: {}", path, num_bytes, std::strerror(error));
  Throw(ErrorKind::kResource,
        "the shared memory segment {} needs {}; {} has {} free of {}. Give it more (mount -o "
        "remount,size=SIZE {}; in a container --shm-size=SIZE), or use fewer ranks, slots or "
        "tokens per iteration",
        path, FormatBytes(static_cast<uint64_t>(num_bytes)), folder,
        FormatBytes(uint64_t{space.f_bavail} * space.f_frsize),
        FormatBytes(uint64_t{space.f_blocks} * space.f_frsize), folder);
}

void WriteHeader(int fd, const std::string& path, const std::string& job, int64_t num_bytes) {
  const ProcessStamp self = ThisProcess();
  Header header{.magic = kMagic,
                .version = kVersion,
                .owner_pid = self.pid,
                .owner_start_ticks = self.start_ticks,
                .num_bytes = num_bytes};
  job.copy(header.job, kMaxNameLength);
  if (::pwrite(fd, &header, sizeof(header), 0) != static_cast<ssize_t>(sizeof(header)))
    Throw(ErrorKind::kIo, "{}: cannot write: {}", path, std::strerror(errno));
}

// Gives the nameless file its name. Nobody ever sees a name without a whole header behind it.
void Link(int fd, const std::string& path) {
  const std::string self = fmt::format("/proc/self/fd/{}", fd);
  constexpr int kTries = 16;  // another process may take the name between the two calls
  for (int i = 0; i < kTries; ++i) {
    if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) return;
    if (errno != EEXIST)
      Throw(ErrorKind::kIo, "{}: cannot be made: {}", path, std::strerror(errno));
    if (!RemoveIfOwnerIsDead(path) && ::access(path.c_str(), F_OK) == 0) break;
  }
  ThrowNameInUse(path);
}

}  // namespace

SharedMemory SharedMemory::Create(const SegmentName& name, int64_t num_bytes) {
  const std::string path = PathOf(name);
  if (num_bytes < 1)
    Throw(ErrorKind::kInvalid, "{}: a segment of {} bytes; at least 1", path, num_bytes);
  Descriptor file(::open(name.folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (file.get() < 0)
    Throw(ErrorKind::kIo, "{}: cannot make a shared memory segment: {}", name.folder,
          std::strerror(errno));
  if (::flock(file.get(), LOCK_SH) != 0)
    Throw(ErrorKind::kIo, "{}: cannot lock: {}", path, std::strerror(errno));
  Reserve(file.get(), path, name.folder, kHeaderBytes + num_bytes);
  WriteHeader(file.get(), path, name.job, num_bytes);
  SharedMemory memory(file.Release(), num_bytes);
  memory.Map(path);
  Link(memory.fd_, path);
  memory.linked_path_ = path;
  memory.maker_pid_ = static_cast<int32_t>(::getpid());
  return memory;
}

bool SharedMemory::Exists(const SegmentName& name) {
  return ::access(PathOf(name).c_str(), F_OK) == 0;
}

SharedMemory SharedMemory::Attach(const SegmentName& name) {
  const std::string path = PathOf(name);
  Descriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (file.get() < 0)
    Throw(errno == ENOENT ? ErrorKind::kNotFound : ErrorKind::kIo, "{}: cannot be opened: {}", path,
          std::strerror(errno));
  if (::flock(file.get(), LOCK_SH) != 0)
    Throw(ErrorKind::kIo, "{}: cannot lock: {}", path, std::strerror(errno));
  const Header header = ReadHeader(file.get());
  struct stat info {};
  if (header.magic != kMagic || header.version != kVersion || header.job != name.job ||
      ::fstat(file.get(), &info) != 0 || header.num_bytes < 1 ||
      info.st_size - kHeaderBytes != header.num_bytes)
    Throw(ErrorKind::kCorrupt,
          "{}: no shared memory segment of job '{}' and layout version {} (found version {})", path,
          name.job, kVersion, header.version);
  SharedMemory memory(file.Release(), header.num_bytes);
  memory.Map(path);
  return memory;
}

void SharedMemory::Map(const std::string& path) {
  void* const mapping = ::mmap(nullptr, static_cast<size_t>(kHeaderBytes + size_),
                               PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (mapping == MAP_FAILED)
    Throw(ErrorKind::kIo, "{}: cannot map {} bytes: {}", path, size_, std::strerror(errno));
  mapping_ = static_cast<std::byte*>(mapping);
}

SharedMemory::~SharedMemory() {
  Unlink();
  if (mapping_ != nullptr) ::munmap(mapping_, static_cast<size_t>(kHeaderBytes + size_));
  if (fd_ >= 0) ::close(fd_);
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept { *this = std::move(other); }

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  std::swap(linked_path_, other.linked_path_);
  std::swap(maker_pid_, other.maker_pid_);
  return *this;
}

std::byte* SharedMemory::data() const {
  return mapping_ == nullptr ? nullptr : mapping_ + kHeaderBytes;
}

ProcessStamp SharedMemory::owner() const {
  WIDELOAD_CHECK(mapping_ != nullptr, "owner of an empty handle");
  return OwnerOf(*reinterpret_cast<const Header*>(mapping_));
}

void SharedMemory::Unlink() {
  const std::string path = std::exchange(linked_path_, {});
  if (path.empty() || maker_pid_ != static_cast<int32_t>(::getpid())) return;
  if (HasThatFile(path, fd_)) ::unlink(path.c_str());
}

void SharedMemory::CloseFile() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void CheckSharedMemory(std::span<const SharedMemoryPart> parts, const std::string& folder) {
  struct statvfs space {};
  if (::statvfs(folder.c_str(), &space) != 0)
    Throw(ErrorKind::kIo, "{}: cannot be asked for its size: {}", folder, std::strerror(errno));
  uint64_t sum = 0;
  std::string list;
  for (const SharedMemoryPart& part : parts) {
    sum += static_cast<uint64_t>(part.bytes) + kHeaderBytes;
    list += fmt::format("{}{} {}", list.empty() ? "" : " + ", part.name,
                        FormatBytes(static_cast<uint64_t>(part.bytes)));
  }
  const uint64_t free = uint64_t{space.f_bavail} * space.f_frsize;
  if (sum <= free) return;
  Throw(ErrorKind::kResource,
        "the shared memory of this run needs {} ({}); {} has {} free of {}. Give it more (mount -o "
        "remount,size=SIZE {}; in a container --shm-size=SIZE), or start one process with --ep: "
        "threads need none",
        FormatBytes(sum), list, folder, FormatBytes(free),
        FormatBytes(uint64_t{space.f_blocks} * space.f_frsize), folder);
}

std::vector<SegmentInfo> ListSegments(const std::string& folder) {
  std::vector<SegmentInfo> segments;
  for (const std::string& path : FilesOf(folder)) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (file.get() < 0) continue;
    const Header header = ReadHeader(file.get());
    if (header.magic != kMagic) continue;
    segments.push_back({.path = path,
                        .job = header.job,
                        .num_bytes = header.num_bytes,
                        .owner = OwnerOf(header),
                        .is_owner_alive = IsAlive(OwnerOf(header))});
  }
  return segments;
}

int RemoveDeadSegments(const std::string& folder, std::string_view own_job) {
  int num_removed = 0;
  for (const std::string& path : FilesOf(folder))
    num_removed += RemoveIfOwnerIsDead(path, own_job) ? 1 : 0;
  return num_removed;
}

}  // namespace wideload
