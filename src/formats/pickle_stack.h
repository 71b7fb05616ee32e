// The stack that a pickle's opcodes work on, with its marks, and the bytes they are read from.
// Every access is checked. Only pickle.cc includes this; one thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "formats/pickle.h"

namespace wideload::formats {

class PickleStack {
 protected:
  PickleStack(std::span<const std::byte> bytes, const std::string& source)
      : bytes_(bytes), source_(source) {}

  [[noreturn]] void Corrupt(std::string_view what) const {
    Throw(ErrorKind::kCorrupt, "{}: offset {}: {}", source_, opcode_at_, what);
  }

  std::string_view TakeBytes(uint64_t count) {
    if (count > bytes_.size() - at_) Corrupt("the pickle ends too early");
    const std::string_view taken(reinterpret_cast<const char*>(bytes_.data()) + at_, count);
    at_ += count;
    return taken;
  }
  template <class T>
  T Take() {
    T value;
    std::memcpy(&value, TakeBytes(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view TakeLine() {
    const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_,
                                bytes_.size() - at_);
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) Corrupt("the pickle ends too early");
    at_ += end + 1;
    return rest.substr(0, end);
  }

  template <class T>
  void Push(T value) {
    stack_.push_back(static_cast<uint32_t>(values_.size()));
    values_.push_back({std::move(value)});
  }
  uint32_t Pop() {
    if (stack_.size() <= Floor()) Corrupt("takes a value from an empty stack");
    const uint32_t top = stack_.back();
    stack_.pop_back();
    return top;
  }
  size_t Floor() const { return marks_.empty() ? 0 : marks_.back(); }
  // What lies above the last mark, which goes away.
  std::vector<uint32_t> PopMark() {
    if (marks_.empty()) Corrupt("goes back to a mark that is not there");
    const auto begin = stack_.begin() + static_cast<int64_t>(marks_.back());
    std::vector<uint32_t> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }
  template <class T>
  T& Top(std::string_view what) {
    if (stack_.size() <= Floor()) Corrupt("takes a value from an empty stack");
    T* top = std::get_if<T>(&values_[stack_.back()].value);
    if (top == nullptr) Corrupt(what);
    return *top;
  }
  template <class T>
  const T& At(uint32_t index, std::string_view what) const {
    const T* value = std::get_if<T>(&values_[index].value);
    if (value == nullptr) Corrupt(what);
    return *value;
  }

  uint32_t TopIndex() const {
    if (stack_.size() <= Floor()) Corrupt("takes a value from an empty stack");
    return stack_.back();
  }

  std::span<const std::byte> bytes_;
  const std::string& source_;
  uint64_t at_ = 0;
  uint64_t opcode_at_ = 0;
  std::vector<PickledValue> values_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;
};

}  // namespace wideload::formats
