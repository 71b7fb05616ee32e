#include "serve/tool_calls.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "serve/tool_bodies.h"

namespace wideload::serve {
namespace {

constexpr size_t kNowhere = std::string_view::npos;
constexpr std::string_view kBlanks = " \n\r\t";

// What stands around a call, and what is left out of the text beside calls.
struct Marks {
  std::string_view begin, end;
  std::array<std::string_view, 2> left_out;
};

const Marks& MarksOf(ToolForm form) {
  static constexpr Marks kTagged = {"<tool_call>", "</tool_call>", {}};
  static constexpr Marks kDeepSeek = {"<｜tool▁call▁begin｜>",
                                      "<｜tool▁call▁end｜>",
                                      {"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"}};
  static constexpr Marks kKimi = {"<|tool_call_begin|>",
                                  "<|tool_call_end|>",
                                  {"<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"}};
  return form == ToolForm::kDeepSeek ? kDeepSeek : form == ToolForm::kKimi ? kKimi : kTagged;
}

// How many bytes at the end of `text` are the begin of `mark`.
size_t BeginAtEnd(std::string_view text, std::string_view mark) {
  if (mark.empty()) return 0;
  for (size_t n = std::min(text.size(), mark.size() - 1); n > 0; --n)
    if (text.ends_with(mark.substr(0, n))) return n;
  return 0;
}

// The first of the marks in the text.
struct FoundMark {
  size_t at = kNowhere;
  std::string_view mark;
};
FoundMark FindFirst(std::string_view text, std::span<const std::string_view> marks) {
  FoundMark first;
  for (const std::string_view mark : marks) {
    const size_t at = mark.empty() ? kNowhere : text.find(mark);
    if (at < first.at) first = {.at = at, .mark = mark};
  }
  return first;
}

}  // namespace

ToolForm ToolFormOf(std::string_view chat_template) {
  const auto has = [chat_template](std::string_view text) {
    return chat_template.find(text) != kNowhere;
  };
  if (has("<arg_key>")) return ToolForm::kGlm;
  if (has(MarksOf(ToolForm::kDeepSeek).begin)) return ToolForm::kDeepSeek;
  if (has(MarksOf(ToolForm::kKimi).begin)) return ToolForm::kKimi;
  if (has(MarksOf(ToolForm::kTagged).begin)) return ToolForm::kTagged;
  return has("\"parameters\": dictionary of argument name") ? ToolForm::kLlama : ToolForm::kNone;
}

void ToolCallReader::TakeCall(std::string_view body, std::string_view end, Found& found) {
  if (auto call = ParseToolCall(form_, body, text_parameters_)) {
    found.calls.push_back(std::move(*call));
    skips_blanks_ = true;
    return;
  }
  skips_blanks_ = false;
  found.content += MarksOf(form_).begin;
  found.content += body;
  found.content += end;
}

// Blanks after a call are no text.
void ToolCallReader::AddContent(std::string_view text, Found& found) {
  if (skips_blanks_) text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  if (text.empty()) return;
  skips_blanks_ = false;
  found.content += text;
}

ToolCallReader::Found ToolCallReader::Feed(std::string_view text) {
  Found found;
  held_ += text;
  if (form_ == ToolForm::kLlama) {
    const size_t begin = held_.find_first_not_of(kBlanks);
    is_text_ = is_text_ || (begin != std::string::npos && held_[begin] != '{');
    if (is_text_) found.content = std::exchange(held_, {});
    return found;
  }
  const Marks& marks = MarksOf(form_);
  const std::array<std::string_view, 3> outside = {marks.begin, marks.left_out[0],
                                                   marks.left_out[1]};
  while (true) {
    const FoundMark first =
        FindFirst(held_, is_in_call_ ? std::span(&marks.end, 1) : std::span(outside));
    if (first.at == kNowhere) break;
    const std::string_view before = std::string_view(held_).substr(0, first.at);
    if (is_in_call_)
      TakeCall(before, marks.end, found);
    else
      AddContent(before, found);
    if (is_in_call_ || first.mark == marks.begin) is_in_call_ = !is_in_call_;
    held_.erase(0, first.at + first.mark.size());
  }
  if (is_in_call_) return found;
  size_t keep = 0;
  for (const std::string_view mark : outside) keep = std::max(keep, BeginAtEnd(held_, mark));
  AddContent(std::string_view(held_).substr(0, held_.size() - keep), found);
  held_.erase(0, held_.size() - keep);
  return found;
}

ToolCallReader::Found ToolCallReader::Flush() {
  Found found;
  if (form_ == ToolForm::kLlama)
    found = FlushObjects();
  else if (is_in_call_)
    TakeCall(held_, "", found);
  else
    AddContent(held_, found);
  held_.clear();
  is_in_call_ = false;
  return found;
}

// All are calls, or all is text.
ToolCallReader::Found ToolCallReader::FlushObjects() {
  Found found;
  for (std::string_view rest = held_;;) {
    const size_t begin = rest.find_first_not_of(" \n\r\t;");
    if (begin == kNowhere) break;
    const std::string_view object = FirstJsonObject(rest.substr(begin));
    auto call = object.empty() ? std::nullopt : ParseToolCall(form_, object, text_parameters_);
    if (!call) return {.content = held_, .calls = {}};
    found.calls.push_back(std::move(*call));
    rest = rest.substr(begin + object.size());
  }
  if (found.calls.empty()) found.content = held_;
  return found;
}

}  // namespace wideload::serve
