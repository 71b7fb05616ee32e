// JSON with errors that name file, field, found and allowed. Wraps nlohmann-json; the one place
// that catches its exceptions. Include only in .cc files: the header is heavy.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/file.h"

namespace wideload {

// One name for the library's value.
using Json = nlohmann::json;

// Parses `text`. Errors: kCorrupt with `source` (a path) and the place, also for duplicate keys in
// an object and for nesting deeper than 100.
Json ParseJson(std::string_view text, const std::string& source);

// Takes a member of an object, from which it may move. Returns false when it has seen the name
// before.
using JsonMember = std::function<bool(const std::string& name, Json& value)>;

// For objects of very many members: parses `text` and hands on the members of one object as they
// come, in order, without keeping them. `object` names that one: a member of the document, or ""
// for the document itself. Returns the document, in which that object is empty; where it is missing
// or no object, nothing is handed on. Errors: as ParseJson, also when `member` returns false.
Json ParseJsonMembers(std::string_view text, const std::string& source, std::string_view object,
                      const JsonMember& member);

// ReadFile + ParseJson.
Json ReadJsonFile(const std::string& path, uint64_t max_bytes = kMaxSettingsBytes);

// An object of a JSON file together with where it came from; every getter throws Error(kInvalid or
// kCorrupt) naming the file, the full field path, the value found and what is allowed. Does not own
// the Json.
class JsonFields {
 public:
  // Errors: kCorrupt if `object` is no JSON object.
  JsonFields(const Json& object, std::string source, std::string path = "");

  bool Has(std::string_view name) const;          // present and not null
  const Json* Find(std::string_view name) const;  // nullptr when absent or null
  const Json& Required(std::string_view name) const;

  // A whole number in [min, max].
  int64_t Int(std::string_view name, int64_t min, int64_t max) const;
  // The same, or `fallback` when it is absent or null; likewise below.
  int64_t IntOr(std::string_view name, int64_t fallback, int64_t min, int64_t max) const;
  // A number in [min, max].
  double Number(std::string_view name, double min, double max) const;
  // A number in [min, max], or `fallback`.
  double NumberOr(std::string_view name, double fallback, double min, double max) const;
  // true or false, or `fallback`.
  bool BoolOr(std::string_view name, bool fallback) const;
  // A text.
  std::string String(std::string_view name) const;
  // A text, or `fallback`.
  std::string StringOr(std::string_view name, std::string fallback) const;
  // An object, with its place in the file.
  JsonFields Object(std::string_view name) const;

  // "config.json: rope_scaling.factor"
  std::string Where(std::string_view name) const;
  [[noreturn]] void Refuse(std::string_view name, std::string_view allowed) const;

  const Json& json() const { return *object_; }
  const std::string& source() const { return source_; }

 private:
  const Json* object_;
  std::string source_;
  std::string path_;
};

// One line, invalid UTF-8 replaced by U+FFFD.
std::string DumpJson(const Json& value, int indent = -1);

}  // namespace wideload
