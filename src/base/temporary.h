// Files and folders on their way: made beside their final place and moved there when whole. They
// have no name or one that cannot be guessed, and are locked as long as their writer lives; what is
// left of a writer that was killed is removed by the next one in the same folder. Not thread-safe
// per object.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/descriptor.h"

namespace wideload {

class Temporary {
 public:
  // What is made.
  enum class Kind { kFile, kFolder };

  // Makes one in `folder`, which must outlive it, and removes what dead writers left there. `path`
  // is for messages. Errors: kInvalid when it cannot be made there.
  Temporary(Kind kind, const Descriptor& folder, mode_t mode, const std::string& path);
  // Removes it, unless MoveTo has been called.
  ~Temporary();
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;

  // Of a file: open for writing.
  int fd() const { return self_.get(); }
  // Of a folder: its name in `folder`.
  const std::string& name() const { return name_; }

  // Gives it the name `final_name` in its folder. A file that has it is replaced, a folder, which
  // must hold files alone, too; it is removed. Errors: kIo.
  void MoveTo(const std::string& final_name);

 private:
  bool MakeNameless(mode_t mode);
  void MakeNamed(mode_t mode);
  void MakeOnce(mode_t mode);
  void TakeName();
  bool HasName() const;
  void Exchange(const std::string& final_name);
  [[noreturn]] void Fail(const char* what) const;

  Kind kind_;
  const Descriptor& folder_;
  std::string path_;
  std::string name_;  // empty: it has none
  Descriptor self_;
  int slot_ = -1;  // of the list that RemoveTemporaries goes through
};

// A new file of this name in `folder`, open for writing; none when there is anything of that name
// already, a link to nowhere included.
Descriptor OpenNewFile(const Descriptor& folder, const std::string& name, mode_t mode);

// Whether a file of this name is one on its way.
bool IsTemporaryName(std::string_view name);

// Removes what this process has on its way and has named. Safe in a signal handler, after which the
// process must end.
void RemoveTemporaries() noexcept;

}  // namespace wideload
