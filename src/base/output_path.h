// Where an output goes. A path is followed once, link by link; what is found is held open, so that
// what was looked at is what is written. Not thread-safe per object.
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>

#include "base/descriptor.h"

namespace wideload {

class OutputPath {
 public:
  // "-" is standard output. Errors: kInvalid naming the path: a missing folder, a folder, a file,
  // device or descriptor that may not be written, links that go round.
  explicit OutputPath(const std::string& path);

  const std::string& path() const { return path_; }

  // A device, pipe or socket, or a descriptor of this process (/dev/stdout, /dev/fd/3): what is
  // written goes there as it comes. Otherwise a file that appears whole.
  bool is_stream() const { return stream_.is_open(); }
  // Of a stream: opened for writing. Errors: kInvalid.
  Descriptor OpenStream() const;
  // Of a stream: what can be asked about it, not written to.
  const Descriptor& stream() const { return stream_; }

  // Of a file: its folder, and its name there behind all links.
  const Descriptor& folder() const { return folder_; }
  const std::string& name() const { return name_; }
  // Of a file: what is there now.
  const std::optional<struct stat>& existing() const { return existing_; }

 private:
  // One step. Returns the path that a link at `rest` holds, relative to the folder, or nothing when
  // the end is reached.
  std::optional<std::string> Step(const std::string& rest);
  void HoldStream(const struct stat& info);
  void HoldMagicLink();
  [[noreturn]] void Refuse(const std::string& reason) const;

  std::string path_;
  Descriptor folder_;
  std::string name_;
  std::optional<struct stat> existing_;
  Descriptor stream_;            // what is written to; of a device by O_PATH, not opened yet
  bool is_open_stream_ = false;  // stream_ can be written to as it is
};

}  // namespace wideload
