// Named memory that processes of one host share. A segment is reserved before it has a name, says
// who owns it, and does not outlive its users: what a dead job left is removed, what a living one
// uses is never touched. Handles are used by one thread; the bytes by whoever maps them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/process.h"

namespace wideload {

// Where a segment lies: the file `wideload.JOB.NAME` of `folder`. Letters, digits, '_' and '-' only
// in `job` and `name`; together at most 200 of them.
struct SegmentName {
  std::string job = {};  // the same for all segments of one run
  std::string name = {};
  std::string folder = "/dev/shm";
  // The whole name of the file, where others document one; of the same letters, with `job` at most
  // 200. Empty: as above, and else `name` is not used.
  std::string file = {};
};

// A mapped segment. Its name goes with the handle that made it, at Unlink or at the latest when
// that is destroyed; the memory goes with the last handle of all processes, also when they are
// killed. Move-only.
class SharedMemory {
 public:
  SharedMemory() = default;

  // Makes a segment of `num_bytes` zero bytes, all of them reserved: writing to them cannot fail
  // later. The leftover of a dead owner under that name is replaced.
  // Errors: kResource when the folder has not the space (how much is needed, how much is there,
  // what to do) or when a living job uses the name (which one); kInvalid for a bad name or size;
  // kIo.
  static SharedMemory Create(const SegmentName& name, int64_t num_bytes);

  // Whether a file of that name is there, of a living job or not.
  static bool Exists(const SegmentName& name);

  // Maps a segment that another process made. Errors: kNotFound; kCorrupt when the file is no
  // segment of this version or not of this job; kIo.
  static SharedMemory Attach(const SegmentName& name);

  ~SharedMemory();
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;

  // [size()], page-aligned; the same memory in every process.
  std::byte* data() const;
  int64_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data(), static_cast<size_t>(size_)}; }
  // Who made it.
  ProcessStamp owner() const;

  // Takes the name away; all handles stay valid. Of the handle that made the segment: after all
  // processes that need it have attached. No effect on others and when called again.
  void Unlink();
  // Closes the file: the lock that says "in use" goes, the memory stays mapped. After the name is
  // gone, or of handles that did not make the segment while that one's holder lives.
  void CloseFile();

 private:
  SharedMemory(int fd, int64_t size) : fd_(fd), size_(size) {}
  void Map(const std::string& path);

  int fd_ = -1;  // open as long as the handle: it holds the lock that says "in use"
  int64_t size_ = 0;
  std::byte* mapping_ = nullptr;  // header page, then the bytes
  std::string linked_path_;       // of the handle that made it, until Unlink
  int32_t maker_pid_ = 0;         // a forked child does not unlink what its parent made
};

// One use of shared memory that a start will make, for CheckSharedMemory.
struct SharedMemoryPart {
  std::string name;  // "weights"
  int64_t bytes = 0;
};
// Does nothing when the parts together fit into what `folder` has free. Errors: kResource with
// every part, the sum, what is there and what to do.
void CheckSharedMemory(std::span<const SharedMemoryPart> parts,
                       const std::string& folder = "/dev/shm");

// A segment that has a name.
struct SegmentInfo {
  std::string path;
  std::string job;
  int64_t num_bytes = 0;
  ProcessStamp owner;
  bool is_owner_alive = false;
};
// All of `folder`, sorted by path. Errors: none; what cannot be read is left out.
std::vector<SegmentInfo> ListSegments(const std::string& folder = "/dev/shm");

// Removes every segment of `folder` whose owner is dead and that nobody maps. Those of `own_job`, a
// run that has failed, and of jobs whose names begin with it go although its survivors map them:
// they keep the memory, and nobody will attach any more. Files that are no segments stay. Returns
// how many went. Errors: none; what cannot be opened or removed stays.
int RemoveDeadSegments(const std::string& folder = "/dev/shm", std::string_view own_job = {});

}  // namespace wideload
