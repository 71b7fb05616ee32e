// Files: read-only mappings, whole reads, and output that appears whole or not at all. Not
// thread-safe per object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/descriptor.h"
#include "base/output_path.h"
#include "base/temporary.h"

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
  // Takes the pages read so far out of this process's memory; the next use reads them again. A
  // hint: nothing happens where the system does not take it.
  void GiveBackPages() const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int entry_ = -1;  // of the table of mappings
};

// How large files may be by what they hold: settings; a text to continue; tables, lists of token
// ids, tokenizers, the requests of a benchmark.
constexpr uint64_t kMaxSettingsBytes = uint64_t{16} << 20;
constexpr uint64_t kMaxPromptBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxTableBytes = uint64_t{512} << 20;

// The file's content; "-" reads standard input. Errors: kNotFound, kIo, kResource when larger than
// max_bytes: of a stream no more than that is read.
std::string ReadFile(const std::string& path, uint64_t max_bytes = kMaxTableBytes);

// Writes `content` as WholeFileWriter does. Errors: those of the writer; kIo, with the reason.
void WriteFileWhole(const std::string& path, std::string_view content);

// Output that appears whole or not at all: Append, then Commit. Until then `path` holds what it
// held before, and nothing stays when the process ends, at the latest after the next writer in the
// same folder. A link is followed and stays; a file's mode stays. A stream (OutputPath: "-", a
// device, a pipe, /dev/stdout) is written to as the output comes.
class WholeFileWriter {
 public:
  // Errors: kInvalid when it cannot be written: refused before work.
  explicit WholeFileWriter(const std::string& path);
  WholeFileWriter(const WholeFileWriter&) = delete;
  WholeFileWriter& operator=(const WholeFileWriter&) = delete;

  // At the end of what is there. Errors: kIo.
  void Append(std::string_view bytes);
  void Append(std::span<const std::byte> bytes);
  // From the byte `offset` of the file on, without moving where Append goes on. Not of a stream.
  void WriteAt(int64_t offset, std::span<const std::byte> bytes);
  bool is_stream() const { return place_.is_stream(); }
  // Flushes, syncs and renames. Errors: kIo.
  void Commit();

 private:
  void KeepMode() const;

  OutputPath place_;
  Descriptor stream_;
  std::optional<Temporary> temporary_;  // none: a stream
  int fd_ = -1;                         // of either
};

// The same for a folder of files: each is written to PathOf(its name), then Commit. A folder that
// is there is replaced by this one; it must hold files alone.
class WholeFolderWriter {
 public:
  // Errors: kInvalid when it cannot be made.
  explicit WholeFolderWriter(const std::string& path);
  WholeFolderWriter(const WholeFolderWriter&) = delete;
  WholeFolderWriter& operator=(const WholeFolderWriter&) = delete;

  // Where a file of the folder is to be written.
  std::string PathOf(const std::string& name) const;
  // Errors: kIo.
  void Commit();

 private:
  std::string parent_;
  std::string name_;
  Descriptor folder_;
  std::optional<Temporary> temporary_;
};

// Refuses an output path before the work that makes its content. Leaves nothing behind. Errors:
// kInvalid when it cannot be written.
void CheckWritable(const std::string& path);
// The same for an output folder: it is one or is not there, and the folder around it can be
// written.
void CheckFolderWritable(const std::string& path);

// Whether there is anything at the path, links followed.
bool FileExists(const std::string& path);
// Whether there is a folder, links followed.
bool IsDirectory(const std::string& path);

}  // namespace wideload
