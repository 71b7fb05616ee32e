// Files: read-only mappings, whole reads, and output that appears whole or not at all. Not
// thread-safe per object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace wideload {

// A read-only memory mapping of a whole file; an empty file maps to an empty span. Move-only.
class MappedFile {
 public:
  MappedFile() = default;
  // Errors: kNotFound if there is no such file, kInvalid if it cannot be opened, kIo if it cannot
  // be mapped or is no regular file.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Gives the memory of the first bytes back; who reads them later waits for the file again.
  void LetGoOfFirst(size_t num_bytes) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The file's content; "-" reads standard input. Errors: kNotFound, kIo, kResource when larger than
// max_bytes.
std::string ReadFile(const std::string& path, uint64_t max_bytes = uint64_t{1} << 30);

// Writes `content` to a temporary file beside `path` and renames it, so that `path` holds all of it
// or what it held before; "-" writes to standard output. A path that is a device or a pipe is
// written to in place. Errors: kIo, with the reason.
void WriteFileWhole(const std::string& path, std::string_view content);

// The same for output that is produced in parts: Append, then Commit. Without Commit nothing
// appears.
class WholeFileWriter {
 public:
  // Opens the temporary file. Errors: kInvalid when the folder is missing or not writable: refused
  // before work.
  explicit WholeFileWriter(const std::string& path);
  ~WholeFileWriter();
  WholeFileWriter(const WholeFileWriter&) = delete;
  WholeFileWriter& operator=(const WholeFileWriter&) = delete;

  void Append(std::string_view bytes);
  void Append(std::span<const std::byte> bytes);
  // Flushes, syncs and renames. Errors: kIo.
  void Commit();

 private:
  std::string path_;
  std::string temporary_path_;  // empty: `path` is written to in place
  int fd_ = -1;
};

// Refuses an output path before the work that makes its content; "-" is fine. Leaves nothing
// behind. Errors: kInvalid when the folder is missing or not writable.
void CheckWritable(const std::string& path);

bool FileExists(const std::string& path);
bool IsDirectory(const std::string& path);

}  // namespace wideload
