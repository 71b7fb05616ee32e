// Local files of texts and of questions. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace wideload::evaluation {

// A question with answers to choose from.
struct Question {
  std::string context;               // what stands before each answer; may be empty
  std::vector<std::string> choices;  // at least 2; none is empty
  size_t gold = 0;                   // index of the right one
};

// The texts of JSON lines {"text": text}; other keys are ignored. `source` is the file's name for
// messages. Errors: kCorrupt, kInvalid, naming file, line, field, found, allowed.
std::vector<std::string> ParseDocuments(std::string_view content, const std::string& source);

// JSON lines {"context": text, "choices": [texts], "gold": index}; other keys are ignored. Errors:
// as ParseDocuments.
std::vector<Question> ParseQuestions(std::string_view content, const std::string& source);

}  // namespace wideload::evaluation
