#include "serve/tool_calls.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/json.h"

namespace wideload::serve {
namespace {

constexpr std::string_view kBegin = "<tool_call>";
constexpr std::string_view kEnd = "</tool_call>";

// How many bytes at the end of `text` are the begin of `mark`.
size_t BeginAtEnd(std::string_view text, std::string_view mark) {
  for (size_t n = std::min(text.size(), mark.size() - 1); n > 0; --n)
    if (text.ends_with(mark.substr(0, n))) return n;
  return 0;
}

// The text of the object's member as it is written: its keys keep their order.
std::optional<std::string> MemberText(const std::string& body, const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object()) return std::nullopt;
  const size_t key = body.find("\"arguments\"");
  const size_t begin = key == std::string::npos ? key : body.find('{', key);
  if (begin == std::string::npos) return std::nullopt;
  int depth = 0;
  bool is_in_text = false;
  for (size_t i = begin; i < body.size(); ++i) {
    const char c = body[i];
    if (is_in_text && c == '\\') ++i;
    if (c == '"') is_in_text = !is_in_text;
    if (is_in_text) continue;
    depth += c == '{' ? 1 : c == '}' ? -1 : 0;
    if (depth == 0) return body.substr(begin, i + 1 - begin);
  }
  return std::nullopt;
}

std::optional<ToolCall> ParseCall(const std::string& body) {
  try {
    const Json call = ParseJson(body, "a tool call");
    if (!call.is_object() || !call.contains("name") || !call["name"].is_string())
      return std::nullopt;
    ToolCall result{.name = call["name"].get<std::string>(), .arguments = "{}"};
    if (!call.contains("arguments")) return result;
    std::optional<std::string> text = MemberText(body, call["arguments"]);
    if (!text || ParseJson(*text, "its arguments").is_null()) return std::nullopt;
    result.arguments = std::move(*text);
    return result;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

bool ToolCallReader::IsFormOf(std::string_view prompt) {
  return prompt.find(kBegin) != std::string_view::npos;
}

void ToolCallReader::TakeCall(std::string_view body, std::string_view end, Found& found) {
  if (auto call = ParseCall(std::string(body))) {
    found.calls.push_back(std::move(*call));
    ++num_calls_;
    return;
  }
  found.content += kBegin;
  found.content += body;
  found.content += end;
}

// Blanks between calls are no text.
void ToolCallReader::AddContent(std::string_view text, Found& found) const {
  const bool is_blank = text.find_first_not_of(" \n\r\t") == std::string_view::npos;
  if (num_calls_ == 0 || !is_blank) found.content += text;
}

ToolCallReader::Found ToolCallReader::Feed(std::string_view text) {
  Found found;
  held_ += text;
  while (true) {
    const std::string_view mark = is_in_call_ ? kEnd : kBegin;
    const size_t at = held_.find(mark);
    if (at == std::string::npos) break;
    if (is_in_call_)
      TakeCall(std::string_view(held_).substr(0, at), kEnd, found);
    else
      AddContent(std::string_view(held_).substr(0, at), found);
    held_.erase(0, at + mark.size());
    is_in_call_ = !is_in_call_;
  }
  if (is_in_call_) return found;
  const size_t keep = BeginAtEnd(held_, kBegin);
  AddContent(std::string_view(held_).substr(0, held_.size() - keep), found);
  held_.erase(0, held_.size() - keep);
  return found;
}

ToolCallReader::Found ToolCallReader::Flush() {
  Found found;
  if (is_in_call_)
    TakeCall(held_, "", found);
  else
    AddContent(held_, found);
  held_.clear();
  is_in_call_ = false;
  return found;
}

}  // namespace wideload::serve
