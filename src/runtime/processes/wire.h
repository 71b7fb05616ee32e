// Plain values as bytes and back, for messages between the processes of one run: same program, same
// kind of machine. Reading checks every length; nothing in a message is code. Values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace wideload::runtime {

// Appends to `bytes`, which must outlive the writer and is cleared first.
class ByteWriter {
 public:
  // At the begin of `bytes`.
  explicit ByteWriter(std::vector<std::byte>& bytes) : bytes_(bytes) { bytes_.clear(); }

  // The value's bytes as they are.
  template <class T>
  void Put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    Append(&value, sizeof(T));
  }
  // The count, then the elements, aligned so that a reader can look at them in place.
  template <class T>
  void PutAll(std::span<const T> values) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    Put(static_cast<uint64_t>(values.size()));
    bytes_.resize((bytes_.size() + kAlignment - 1) / kAlignment * kAlignment);
    Append(values.data(), values.size_bytes());
  }
  // As PutAll of its bytes.
  void PutText(std::string_view text) { PutAll(std::span<const char>(text)); }

  static constexpr size_t kAlignment = 8;

 private:
  void Append(const void* data, size_t num_bytes);

  std::vector<std::byte>& bytes_;
};

// Reads what a ByteWriter wrote. Errors of all: kCorrupt when the bytes end before.
class ByteReader {
 public:
  // `bytes` must be aligned to ByteWriter::kAlignment and outlive what TakeAll returns.
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  // What Put wrote.
  template <class T>
  T Take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, TakeBytes(sizeof(T)).data(), sizeof(T));
    return value;
  }
  template <class T>
  std::span<const T> TakeAll() {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto count = Take<uint64_t>();
    const std::span<const std::byte> data = TakeArray(count, sizeof(T));
    return {reinterpret_cast<const T*>(data.data()), static_cast<size_t>(count)};
  }
  // What PutText wrote.
  std::string TakeText() {
    const std::span<const char> text = TakeAll<char>();
    return {text.begin(), text.end()};
  }
  bool is_at_end() const { return position_ == bytes_.size(); }

 private:
  std::span<const std::byte> TakeBytes(size_t num_bytes);
  std::span<const std::byte> TakeArray(uint64_t count, size_t element_bytes);

  std::span<const std::byte> bytes_;
  size_t position_ = 0;
};

}  // namespace wideload::runtime
