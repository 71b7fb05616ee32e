// Files of other engines made in memory, for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace wideload::formats {

inline std::string RefusalOf(const std::function<void()>& read) {
  try {
    read();
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

inline std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text));
}

template <class T>
std::string Raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// A zip archive of stored members, as torch.save and numpy.savez write it.
class ZipMaker {
 public:
  ZipMaker& Add(const std::string& name, const std::string& content) {
    members_.push_back({name, static_cast<uint32_t>(archive_.size()), content});
    archive_ += "PK\x03\x04" + Fields(members_.back()) + name + content;
    return *this;
  }
  std::string Archive() const {
    std::string directory;
    for (const Member& member : members_)
      directory += std::string("PK\x01\x02") + Number(20, 2) + Fields(member) +
                   std::string(2 + 2 + 2 + 4, '\0') + Number(member.offset, 4) + member.name;
    const auto count = static_cast<uint32_t>(members_.size());
    return archive_ + directory + "PK\x05\x06" + std::string(4, '\0') + Number(count, 2) +
           Number(count, 2) + Number(static_cast<uint32_t>(directory.size()), 4) +
           Number(static_cast<uint32_t>(archive_.size()), 4) + std::string(2, '\0');
  }

  static uint32_t Checksum(const std::string& content) {
    uint32_t crc = ~0U;
    for (const char c : content) {
      crc ^= static_cast<uint8_t>(c);
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) * 0xedb88320U);
    }
    return ~crc;
  }

 private:
  struct Member {
    std::string name;
    uint32_t offset;
    std::string content;
  };
  static std::string Number(uint32_t value, size_t bytes) {
    return std::string(reinterpret_cast<const char*>(&value), bytes);
  }
  // What a local header and a directory entry share: versions to lengths of name and extra fields.
  static std::string Fields(const Member& member) {
    const auto size = static_cast<uint32_t>(member.content.size());
    return Number(20, 2) + Number(0, 2) + Number(0, 2) + Number(0, 4) +
           Number(Checksum(member.content), 4) + Number(size, 4) + Number(size, 4) +
           Number(static_cast<uint32_t>(member.name.size()), 2) + Number(0, 2);
  }

  std::string archive_;
  std::vector<Member> members_;
};

// The pickle of {"logical_count": tensor of int32 [shape] with storage key 0}, as torch.save writes
// it.
inline std::string TensorPickle(const std::vector<uint8_t>& shape,
                                const std::vector<uint8_t>& strides, uint8_t elements) {
  const auto text = [](const std::string& value) {
    const auto size = static_cast<uint32_t>(value.size());
    return "X" + std::string(reinterpret_cast<const char*>(&size), 4) + value;
  };
  const auto tuple = [](const std::vector<uint8_t>& values) {
    std::string code = "(";
    for (const uint8_t value : values) code += std::string("K") + static_cast<char>(value);
    return code + "t";
  };
  return std::string("\x80\x02}q\x00(", 6) + text("logical_count") +
         "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nIntStorage\n" +
         text("0") + text("cpu") + "K" + static_cast<char>(elements) + "tQK" +
         std::string(1, '\0') + tuple(shape) + tuple(strides) + "\x89" +
         "ccollections\nOrderedDict\n)RtRu.";
}

}  // namespace wideload::formats
