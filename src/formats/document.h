// A file's content as a tree of plain containers, texts, numbers and arrays, whether it was JSON or
// a torch.save archive: what the readers of one engine's files look at. Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/number_array.h"

namespace wideload::formats {

class Document {
 public:
  // Values in their order.
  using List = std::vector<Document>;
  // Values by their keys, which are texts.
  using Dict = std::map<std::string, Document>;

  Document() = default;  // null
  template <class T>
  explicit Document(T value) : value_(std::move(value)) {}

  bool IsNull() const { return std::holds_alternative<std::monostate>(value_); }
  const Dict* AsDict() const { return std::get_if<Dict>(&value_); }
  const List* AsList() const { return std::get_if<List>(&value_); }
  const std::string* AsText() const { return std::get_if<std::string>(&value_); }
  // A number is an array of rank 0; nested arrays of numbers, all of one shape, are one array.
  const NumberArray* AsArray() const { return std::get_if<NumberArray>(&value_); }

  // The value of a key; nullptr when this is no dictionary, or the key is absent or null.
  const Document* Find(std::string_view key) const;

  // "a text", "[3, 4]", ... for messages.
  std::string Describe() const;

 private:
  std::variant<std::monostate, bool, std::string, NumberArray, List, Dict> value_;
};

// Errors: those of ParseJson.
Document ParseJsonDocument(std::string_view text, const std::string& source);

// A file of torch.save: a zip archive with data.pkl and data/*. Only tensors and plain containers
// are read, see pickle.h. Errors, with `source`: those of ZipFile and ParsePickle; kUnsupported for
// the format that PyTorch had before 1.6, big-endian files, other storages; kCorrupt for tensors
// beyond their storage.
Document ParseTorchDocument(std::span<const std::byte> bytes, const std::string& source);

// The integer at `key`, in [min, max]. Errors: kInvalid with `where` (the place of `parent`).
int64_t IntegerOf(const Document& parent, std::string_view key, int64_t min, int64_t max,
                  const std::string& where);
// An allowed number of dimensions: of a matrix.
inline constexpr std::array<size_t, 1> kTwoDimensions = {2};
// The array at `key`. Errors: kInvalid with `where` when it is absent, no array, of another rank
// than one in `ranks`; `meaning` says what it must be: "[layers, experts]".
const NumberArray& ArrayOf(const Document& parent, std::string_view key,
                           std::span<const size_t> ranks, std::string_view meaning,
                           const std::string& where);

}  // namespace wideload::formats
