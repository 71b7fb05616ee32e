// Zip archives as numpy.savez and torch.save write them: names and bytes of members. Stored and
// deflated members, zip64; nothing encrypted, nothing in parts. Reading is thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

namespace wideload::formats {

class ZipFile {
 public:
  // `bytes` must outlive this object; `name` is used in messages.
  // Errors: kCorrupt naming file and member: no directory at the end, records beyond the file, a
  // name twice; kUnsupported for encrypted members and other methods than stored and deflated.
  ZipFile(std::span<const std::byte> bytes, std::string name);

  // Whether bytes begin as a zip archive does.
  static bool Is(std::span<const std::byte> bytes);

  // Whether there is a member of that name.
  bool Has(const std::string& member) const { return members_.contains(member); }
  // The member's content: a part of the archive when it is stored, else unpacked into `buffer`.
  // The checksum is compared. Errors: kNotFound, kCorrupt; kResource for more than 4 GiB unpacked.
  std::span<const std::byte> Read(const std::string& member, std::string& buffer) const;

  // Where a member lies in the archive.
  struct Member {
    uint64_t offset = 0;  // of its data
    uint64_t packed_bytes = 0;
    uint64_t bytes = 0;
    uint32_t checksum = 0;
    bool is_deflated = false;
  };
  const std::map<std::string, Member>& members() const { return members_; }

 private:
  void ReadDirectory();
  uint64_t ReadEntry(uint64_t at);

  std::span<const std::byte> bytes_;
  std::string name_;
  std::map<std::string, Member> members_;
};

}  // namespace wideload::formats
