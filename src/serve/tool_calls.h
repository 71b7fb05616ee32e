// Finds the calls of tools in what a model writes, as it comes: text between <tool_call> and
// </tool_call> that is {"name": ..., "arguments": {...}}, the form of Hermes and Qwen. Not
// thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace wideload::serve {

// A call that the model asks for.
struct ToolCall {
  std::string name;
  std::string arguments;  // JSON, as the model has written it
};

class ToolCallReader {
 public:
  // Whether a prompt that shows tools teaches the model this form.
  static bool IsFormOf(std::string_view prompt);

  // What a piece of text has brought.
  struct Found {
    std::string content;  // text that is no call; can be shown now
    std::vector<ToolCall> calls;
  };
  // Takes the next text. What may be the begin of a call is kept until it is known. What stands
  // between the marks and is no call is content, marks included.
  Found Feed(std::string_view text);
  // The rest, once no more comes; a call that was not closed counts if it is whole.
  Found Flush();

 private:
  void TakeCall(std::string_view body, std::string_view end, Found& found);

  void AddContent(std::string_view text, Found& found) const;

  std::string held_;
  bool is_in_call_ = false;
  int num_calls_ = 0;
};

}  // namespace wideload::serve
