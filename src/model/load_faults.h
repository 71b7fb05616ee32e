// What is wrong with the tensors of a checkpoint, gathered while a model is measured: one line for
// tensors whose names differ in numbers alone. Used by one thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace wideload::model {

class LoadFaults {
 public:
  // `is_missing`: rather than of a wrong shape or type.
  void Add(std::string_view tensor, bool is_missing, const Error& error);
  // Counts one more missing tensor, if one like it has been added; else returns false. To ask a
  // checkpoint for a tensor that it lacks takes long: it looks for what it has instead.
  bool AddMissingAlike(std::string_view tensor);

  bool empty() const { return kinds_.empty(); }
  // In the order of the model; at most `max_lines` and one that tells how many are left out.
  std::vector<std::string> Lines(size_t max_lines = 20) const;
  // Throws the lines as one Error, of the first one's kind, if there are any.
  void ThrowIfAny() const;

 private:
  struct Kind {
    std::string message;  // of the first
    std::string last;     // name; a tensor may be asked for several times
    int64_t count = 0;
  };
  bool Count(const std::string& key, std::string_view tensor);

  std::vector<Kind> kinds_;
  std::map<std::string, size_t> index_of_;  // of kinds_, by the names' pattern
  ErrorKind kind_ = ErrorKind::kInvalid;
};

}  // namespace wideload::model
