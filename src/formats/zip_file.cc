#include "formats/zip_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "formats/inflate.h"

namespace wideload::formats {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kDirectoryEntry = 0x02014b50;
constexpr uint32_t kDirectoryEnd = 0x06054b50;
constexpr uint32_t kDirectoryEnd64 = 0x06064b50;
constexpr uint32_t kLocator64 = 0x07064b50;
constexpr uint64_t kMaxUnpackedBytes = uint64_t{4} << 30;
constexpr uint16_t kExtra64 = 1;
constexpr uint32_t kIn64 = std::numeric_limits<uint32_t>::max();  // the field is in an extra one

// Little-endian integer of T at `at`. Errors: kCorrupt beyond the file.
template <class T>
T Field(std::span<const std::byte> bytes, uint64_t at, const std::string& name) {
  if (at > bytes.size() || bytes.size() - at < sizeof(T))
    Throw(ErrorKind::kCorrupt, "{}: a record of the zip archive lies beyond its end", name);
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

uint32_t Crc32(std::span<const std::byte> bytes) {
  static const std::array<uint32_t, 256> kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < table.size(); ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1U) * 0xedb88320U);
      table[i] = value;
    }
    return table;
  }();
  uint32_t crc = ~0U;
  for (const std::byte byte : bytes)
    crc = kTable[(crc ^ static_cast<uint32_t>(byte)) & 0xffU] ^ (crc >> 8);
  return ~crc;
}

// The fields of a directory entry that a zip64 extra field replaces, in its order.
void TakeExtra64(std::span<const std::byte> bytes, uint64_t at, uint64_t end,
                 const std::array<uint64_t*, 3>& fields, const std::string& name) {
  while (at + 4 <= end) {
    const auto id = Field<uint16_t>(bytes, at, name);
    const auto size = Field<uint16_t>(bytes, at + 2, name);
    at += 4;
    if (id == kExtra64) {
      uint64_t next = at;
      for (uint64_t* field : fields) {
        if (*field != kIn64 || next + 8 > at + size) continue;
        *field = Field<uint64_t>(bytes, next, name);
        next += 8;
      }
    }
    at += size;
  }
}

}  // namespace

bool ZipFile::Is(std::span<const std::byte> bytes) {
  return bytes.size() >= 4 && Field<uint32_t>(bytes, 0, "") == kLocalHeader;
}

ZipFile::ZipFile(std::span<const std::byte> bytes, std::string name)
    : bytes_(bytes), name_(std::move(name)) {
  ReadDirectory();
}

void ZipFile::ReadDirectory() {
  constexpr uint64_t kEndBytes = 22;
  constexpr uint64_t kMaxComment = 65535;
  uint64_t end = bytes_.size();
  bool found = false;
  for (uint64_t back = kEndBytes; back <= std::min<uint64_t>(end, kEndBytes + kMaxComment); ++back)
    if (Field<uint32_t>(bytes_, bytes_.size() - back, name_) == kDirectoryEnd) {
      end = bytes_.size() - back;
      found = true;
      break;
    }
  if (!found)
    Throw(ErrorKind::kCorrupt,
          "{}: is no zip archive, or a cut one: it has no directory at its end", name_);
  uint64_t count = Field<uint16_t>(bytes_, end + 10, name_);
  uint64_t at = Field<uint32_t>(bytes_, end + 16, name_);
  if (end >= 20 && Field<uint32_t>(bytes_, end - 20, name_) == kLocator64) {
    const auto end64 = Field<uint64_t>(bytes_, end - 20 + 8, name_);
    if (Field<uint32_t>(bytes_, end64, name_) != kDirectoryEnd64)
      Throw(ErrorKind::kCorrupt, "{}: the zip64 directory is not where it should be", name_);
    count = Field<uint64_t>(bytes_, end64 + 32, name_);
    at = Field<uint64_t>(bytes_, end64 + 48, name_);
  }
  for (uint64_t i = 0; i < count; ++i) at = ReadEntry(at);
}

// Returns where the next entry begins.
uint64_t ZipFile::ReadEntry(uint64_t at) {
  if (Field<uint32_t>(bytes_, at, name_) != kDirectoryEntry)
    Throw(ErrorKind::kCorrupt, "{}: the directory of the zip archive has a broken entry", name_);
  const auto flags = Field<uint16_t>(bytes_, at + 8, name_);
  const auto method = Field<uint16_t>(bytes_, at + 10, name_);
  Member member{.packed_bytes = Field<uint32_t>(bytes_, at + 20, name_),
                .bytes = Field<uint32_t>(bytes_, at + 24, name_),
                .checksum = Field<uint32_t>(bytes_, at + 16, name_),
                .is_deflated = method == 8};
  const auto name_bytes = Field<uint16_t>(bytes_, at + 28, name_);
  const auto extra_bytes = Field<uint16_t>(bytes_, at + 30, name_);
  const auto comment_bytes = Field<uint16_t>(bytes_, at + 32, name_);
  uint64_t local = Field<uint32_t>(bytes_, at + 42, name_);
  const uint64_t name_at = at + 46;
  const uint64_t end = name_at + name_bytes + extra_bytes + comment_bytes;
  if (end > bytes_.size())
    Throw(ErrorKind::kCorrupt, "{}: a record of the zip archive lies beyond its end", name_);
  const std::string name(reinterpret_cast<const char*>(bytes_.data() + name_at), name_bytes);
  TakeExtra64(bytes_, name_at + name_bytes, name_at + name_bytes + extra_bytes,
              {&member.bytes, &member.packed_bytes, &local}, name_);
  if ((flags & 1U) != 0)
    Throw(ErrorKind::kUnsupported, "{}: member {} is encrypted; that is not supported", name_,
          name);
  if (method != 0 && method != 8)
    Throw(ErrorKind::kUnsupported,
          "{}: member {} is packed by method {}; stored (0) and deflated (8) are supported", name_,
          name, method);
  if (local > bytes_.size() || Field<uint32_t>(bytes_, local, name_) != kLocalHeader)
    Throw(ErrorKind::kCorrupt, "{}: member {} is not where the directory says", name_, name);
  member.offset = local + 30 + Field<uint16_t>(bytes_, local + 26, name_) +
                  Field<uint16_t>(bytes_, local + 28, name_);
  if (member.offset > bytes_.size() || bytes_.size() - member.offset < member.packed_bytes ||
      (!member.is_deflated && member.packed_bytes != member.bytes))
    Throw(ErrorKind::kCorrupt, "{}: member {} has {} bytes, more than the archive", name_, name,
          member.packed_bytes);
  if (!members_.emplace(name, member).second)
    Throw(ErrorKind::kCorrupt, "{}: member {} is there twice", name_, name);
  return end;
}

std::span<const std::byte> ZipFile::Read(const std::string& member, std::string& buffer) const {
  const auto it = members_.find(member);
  if (it == members_.end())
    Throw(ErrorKind::kNotFound, "{}: the archive has no member {}", name_, member);
  const Member& found = it->second;
  const std::string where = name_ + ": " + member;
  std::span<const std::byte> content = bytes_.subspan(found.offset, found.packed_bytes);
  if (found.is_deflated) {
    if (found.bytes > kMaxUnpackedBytes)
      Throw(ErrorKind::kResource, "{} has {} bytes unpacked; at most {} are read", where,
            found.bytes, kMaxUnpackedBytes);
    buffer = Inflate(content, found.bytes, where);
    content = std::as_bytes(std::span(buffer));
  }
  if (Crc32(content) != found.checksum)
    Throw(ErrorKind::kCorrupt, "{}: the checksum does not fit the content", where);
  return content;
}

}  // namespace wideload::formats
