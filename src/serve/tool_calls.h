// Finds the calls of tools in what a model writes, as it comes, in the forms of the families that
// are run here. Not thread-safe.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/value.h"

namespace wideload::serve {

// How a model writes calls.
enum class ToolForm {
  kNone,    // they are text
  kTagged,  // <tool_call>{"name": ..., "arguments": {...}}</tool_call> of Hermes and Qwen, or with
            // <function=NAME><parameter=KEY>VALUE</parameter></function> inside, of Qwen3-Coder
  kGlm,     // <tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>
  kDeepSeek,  // <｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{...}<｜tool▁call▁end｜>, or of V3 and R1
              // function<｜tool▁sep｜>NAME and the arguments between ```json and ```
  kKimi,   // <|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{...}<|tool_call_end|>
  kLlama,  // {"name": ..., "parameters": {...}} and nothing else; several by semicolons
};
// The form that a model learns from its chat template; kNone where that shows none of them.
ToolForm ToolFormOf(std::string_view chat_template);

// A call that the model asks for.
struct ToolCall {
  std::string name;
  std::string arguments;  // a JSON object, as the model has written it
  std::string id;         // that the model has given; "": none
};

// (function, parameter) whose schemas say that it is a text: the forms that write values without
// quotes do not tell.
using TextParameters = std::set<std::pair<std::string, std::string>>;
// Of the tools of a request.
TextParameters TextParametersOf(const jinja::Value& tools);

class ToolCallReader {
 public:
  // Of a form other than kNone.
  ToolCallReader(ToolForm form, TextParameters text_parameters)
      : form_(form), text_parameters_(std::move(text_parameters)) {}

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
  void AddContent(std::string_view text, Found& found);
  Found FlushObjects();

  ToolForm form_;
  TextParameters text_parameters_;
  std::string held_;
  bool is_in_call_ = false;
  bool is_text_ = false;       // of kLlama: it began with something else than a call
  bool skips_blanks_ = false;  // what came last is a call
};

}  // namespace wideload::serve
