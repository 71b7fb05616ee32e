// A config.json as a model family reads it: the fields of the language model, which of them were
// read, and what stands there that cannot be computed. What no reader asked for and yet changes the
// arithmetic is refused, so a family supports the keys that it reads and no others. Used by one
// thread. Include only in .cc files: the header is heavy.
#pragma once

#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace wideload::checkpoint {

class ConfigReader {
 public:
  // Reads a config.json given as text; `source` is its path for messages. Infinity and NaN, which
  // Python writes, count as text. Errors: kCorrupt when it is no JSON object.
  ConfigReader(std::string_view text, const std::string& source);
  ConfigReader(const ConfigReader&) = delete;
  ConfigReader& operator=(const ConfigReader&) = delete;

  // The whole document, and the object that describes the language model: its `text_config` where
  // there is one, as in models of several modalities. These do not count as read.
  JsonFields document() const { return JsonFields(json_, source_); }
  // Those of the language model, which may lie one level down.
  JsonFields fields() const;
  bool is_nested() const { return document().Has("text_config"); }
  const std::string& source() const { return source_; }

  // The getters of JsonFields over fields(); the key counts as read. A value of another type or out
  // of range goes to faults(), and the least allowed value, or `fallback`, is returned: what
  // depends on it need not be looked at (IsFaulty), but everything else can be.
  bool Has(std::string_view name);
  // Null when absent or null.
  const Json* Find(std::string_view name);
  // A whole number in [min, max].
  int64_t Int(std::string_view name, int64_t min, int64_t max);
  // The same, or `fallback` when it is absent or null; likewise below.
  int64_t IntOr(std::string_view name, int64_t fallback, int64_t min, int64_t max);
  // A number in [min, max].
  double Number(std::string_view name, double min, double max);
  // A number in [min, max], or `fallback`.
  double NumberOr(std::string_view name, double fallback, double min, double max);
  // true or false, or `fallback`.
  bool BoolOr(std::string_view name, bool fallback);
  // A text, or `fallback`.
  std::string StringOr(std::string_view name, std::string fallback);
  // The value of `name`, or `fallback`, when it is `only`; otherwise "is X; implemented is `only`"
  // goes to unsupported().
  void Expect(std::string_view name, const Json& fallback, const Json& only);

  // Runs `read`; the Error it throws goes to faults().
  template <class Read>
  void Part(const Read& read) {
    try {
      read();
    } catch (const Error& error) {
      AddFault(error);
    }
  }
  // What is missing or impossible: one sentence each, naming file, field, found and allowed.
  const std::vector<std::string>& faults() const { return faults_; }
  // Whether one of `names` was read and is missing or impossible.
  bool IsFaulty(std::initializer_list<std::string_view> names) const;
  // Throws the faults as one Error, of the first one's kind, if there are any.
  void ThrowFaults() const;

  // One sentence each, naming file, field and value.
  void Unsupported(std::string reason) { unsupported_.push_back(std::move(reason)); }
  const std::vector<std::string>& unsupported() const { return unsupported_; }
  // Adds a reason for every key that is known to change the arithmetic of some published model, is
  // set to a value that does, and has not been read. Call it last.
  void RefuseUnread();

 private:
  Json json_;
  std::string source_;
  void AddFault(const Error& error);
  template <class Value, class Read>
  Value Getting(std::string_view name, const Value& instead, const Read& read);

  std::set<std::string, std::less<>> read_;
  std::set<std::string, std::less<>> faulty_;
  std::vector<std::string> faults_;
  ErrorKind fault_kind_ = ErrorKind::kInvalid;
  std::vector<std::string> unsupported_;
};

}  // namespace wideload::checkpoint
