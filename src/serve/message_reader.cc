#include "serve/message_reader.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "serve/tool_bodies.h"

namespace wideload::serve {
namespace {

constexpr std::string_view kBlanks = " \n\r\t";
constexpr std::string_view kOpenThoughts = "<think>";
constexpr std::string_view kCloseThoughts = "</think>";
constexpr std::string_view kMessage = "<|message|>";
constexpr std::array<std::string_view, 4> kBodyEnds = {"<|end|>", "<|call|>", "<|return|>",
                                                       "<|start|>"};

// How many bytes at the end of `text` are the begin of `mark`.
size_t BeginAtEnd(std::string_view text, std::string_view mark) {
  for (size_t n = std::min(text.size(), mark.size() - 1); n > 0; --n)
    if (text.ends_with(mark.substr(0, n))) return n;
  return 0;
}

void Append(MessagePart&& more, MessagePart& part) {
  part.thoughts += more.thoughts;
  part.content += more.content;
  std::move(more.calls.begin(), more.calls.end(), std::back_inserter(part.calls));
}

}  // namespace

MessageForm MessageFormOf(std::string_view chat_template, std::string_view prompt,
                          const jinja::Value& tools) {
  const auto has = [chat_template](std::string_view text) {
    return chat_template.find(text) != kNowhere;
  };
  MessageForm form;
  if (has("<|channel|>") && has(kMessage)) return {.has_channels = true};
  const size_t end = prompt.find_last_not_of(kBlanks);
  form.has_thoughts = has(kCloseThoughts);
  form.begins_in_thoughts =
      form.has_thoughts && end != kNowhere && prompt.substr(0, end + 1).ends_with(kOpenThoughts);
  if (!tools.IsNone()) form.tools = ToolFormOf(chat_template);
  if (form.tools != ToolForm::kNone) form.text_parameters = TextParametersOf(tools);
  return form;
}

void GoOn(std::string_view content, MessageForm& form) {
  form.goes_on = true;
  const size_t opened = content.rfind(kOpenThoughts), closed = content.rfind(kCloseThoughts);
  form.begins_in_thoughts =
      form.has_thoughts && opened != kNowhere && (closed == kNowhere || closed < opened);
}

MessagePart ThoughtReader::Feed(std::string_view text) {
  MessagePart part;
  held_ += text;
  while (Advance(part)) {
  }
  return part;
}

// Takes what is known of the text that is held. False when more is needed.
bool ThoughtReader::Advance(MessagePart& part) {
  const auto skip_line_ends = [this](State next) {
    held_.erase(0, std::min(held_.find_first_not_of("\r\n"), held_.size()));
    if (held_.empty()) return false;
    state_ = next;
    return true;
  };
  switch (state_) {
    case kBegin: {
      const std::string_view text = held_;
      const std::string_view begin =
          text.substr(std::min(text.find_first_not_of(kBlanks), text.size()));
      if (begin.size() < kOpenThoughts.size() && kOpenThoughts.starts_with(begin)) return false;
      const bool is_opened = begin.starts_with(kOpenThoughts);
      if (is_opened) held_.erase(0, text.size() - begin.size() + kOpenThoughts.size());
      state_ = is_opened ? kOpened : kContent;
      return true;
    }
    case kOpened:
      return skip_line_ends(kInside);
    case kInside: {
      const size_t end = held_.find(kCloseThoughts);
      const size_t known =
          end != std::string::npos ? end : held_.size() - BeginAtEnd(held_, kCloseThoughts);
      const size_t last = std::string_view(held_).substr(0, known).find_last_not_of("\r\n");
      const size_t shown = last == kNowhere ? 0 : last + 1;
      part.thoughts += held_.substr(0, shown);
      if (end == std::string::npos) {
        held_.erase(0, shown);
        return false;
      }
      held_.erase(0, end + kCloseThoughts.size());
      state_ = kClosed;
      return true;
    }
    case kClosed:
      return skip_line_ends(kContent);
    case kContent:
      part.content += std::exchange(held_, {});
      return false;
  }
  return false;
}

MessagePart ThoughtReader::Flush() {
  MessagePart part;
  if (state_ == kInside)
    part.thoughts = std::move(held_);
  else
    part.content = std::move(held_);
  held_.clear();
  return part;
}

MessagePart ChannelReader::Feed(std::string_view text) {
  MessagePart part;
  held_ += text;
  // What begins with no mark, and no " to=...", is content without a header.
  if (!has_begun_ && !held_.empty() && held_[0] != '<' && held_[0] != ' ') kind_ = Kind::kContent;
  has_begun_ = has_begun_ || !held_.empty();
  while (true) {
    const bool is_header = kind_ == Kind::kHeader;
    size_t at = is_header ? held_.find(kMessage) : kNowhere;
    size_t size = kMessage.size();
    if (!is_header)
      for (const std::string_view mark : kBodyEnds)
        if (const size_t found = held_.find(mark); found < at) {
          at = found;
          size = mark.size();
        }
    if (at == kNowhere) break;
    const std::string before = held_.substr(0, at);
    held_.erase(0, at + size);
    if (is_header) {
      ReadHeader(before);
    } else {
      TakeBody(before, part);
      EndBody(part);
    }
  }
  if (kind_ == Kind::kHeader) return part;
  size_t keep = 0;
  for (const std::string_view mark : kBodyEnds) keep = std::max(keep, BeginAtEnd(held_, mark));
  TakeBody(std::string_view(held_).substr(0, held_.size() - keep), part);
  held_.erase(0, held_.size() - keep);
  return part;
}

void ChannelReader::ReadHeader(std::string_view header) {
  constexpr std::string_view kTo = "to=functions.";
  constexpr std::string_view kChannel = "<|channel|>";
  if (const size_t to = header.find(kTo); to != kNowhere) {
    const std::string_view name = header.substr(to + kTo.size());
    function_ = name.substr(0, name.find_first_of(" <\n\t"));
    kind_ = Kind::kCall;
    return;
  }
  const size_t channel = header.find(kChannel);
  const bool is_thought =
      channel != kNowhere && header.substr(channel + kChannel.size()).starts_with("analysis");
  kind_ = is_thought ? Kind::kThoughts : Kind::kContent;
}

void ChannelReader::TakeBody(std::string_view text, MessagePart& part) {
  std::string& target = kind_ == Kind::kThoughts ? part.thoughts
                        : kind_ == Kind::kCall   ? arguments_
                                                 : part.content;
  target += text;
}

void ChannelReader::EndBody(MessagePart& part) {
  if (kind_ == Kind::kCall) {
    if (auto call = MakeToolCall(function_, arguments_))
      part.calls.push_back(std::move(*call));
    else
      part.content += arguments_;
  }
  function_.clear();
  arguments_.clear();
  kind_ = Kind::kHeader;
}

MessagePart ChannelReader::Flush() {
  MessagePart part;
  if (kind_ != Kind::kHeader) {
    TakeBody(held_, part);
    EndBody(part);
  }
  held_.clear();
  return part;
}

MessageReader::MessageReader(const MessageForm& form) {
  if (form.has_channels) channels_.emplace(form.goes_on);
  if (form.has_thoughts) thoughts_.emplace(form);
  if (form.tools != ToolForm::kNone) calls_.emplace(form.tools, form.text_parameters);
}

MessagePart MessageReader::Feed(std::string_view text) {
  if (channels_) return channels_->Feed(text);
  MessagePart part;
  if (thoughts_)
    part = thoughts_->Feed(text);
  else
    part.content = text;
  if (!calls_) return part;
  ToolCallReader::Found found = calls_->Feed(part.content);
  part.content = std::move(found.content);
  part.calls = std::move(found.calls);
  return part;
}

MessagePart MessageReader::Flush() {
  if (channels_) return channels_->Flush();
  MessagePart part = thoughts_ ? thoughts_->Flush() : MessagePart();
  if (!calls_) return part;
  const auto take = [&part](ToolCallReader::Found found) {
    Append({.thoughts = "", .content = std::move(found.content), .calls = std::move(found.calls)},
           part);
  };
  const std::string content = std::exchange(part.content, {});
  take(calls_->Feed(content));
  take(calls_->Flush());
  return part;
}

}  // namespace wideload::serve
