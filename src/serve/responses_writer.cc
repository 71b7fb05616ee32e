#include "serve/responses_writer.h"

#include <fmt/format.h>

#include <utility>

namespace wideload::serve {

ResponsesWriter::ResponsesWriter(Head head) : head_(std::move(head)) {}

void ResponsesWriter::Add(Events& events, const char* type, Json fields) {
  fields["type"] = type;
  fields["sequence_number"] = num_events_++;
  events.push_back(std::move(fields));
}

Json ResponsesWriter::Object() const {
  Json object = {{"id", head_.id},
                 {"object", "response"},
                 {"created_at", head_.created},
                 {"status", status_},
                 {"background", false},
                 {"error", nullptr},
                 {"incomplete_details", incomplete_details_},
                 {"instructions", nullptr},
                 {"max_output_tokens", nullptr},
                 {"metadata", Json::object()},
                 {"output", output_},
                 {"parallel_tool_calls", true},
                 {"previous_response_id", nullptr},
                 {"reasoning", {{"effort", nullptr}, {"summary", nullptr}}},
                 {"temperature", nullptr},
                 {"text", {{"format", {{"type", "text"}}}}},
                 {"tool_choice", "auto"},
                 {"tools", Json::array()},
                 {"top_p", nullptr},
                 {"truncation", "disabled"},
                 {"usage", usage_},
                 {"user", nullptr}};
  for (const auto& [name, value] : head_.said.items())
    if (object.contains(name) && !value.is_null()) object[name] = value;
  object["model"] = head_.model;
  object["store"] = false;
  return object;
}

ResponsesWriter::Events ResponsesWriter::Begin() {
  Events events;
  Add(events, "response.created", {{"response", Object()}});
  Add(events, "response.in_progress", {{"response", Object()}});
  return events;
}

Json ResponsesWriter::Place() const {
  return {{"item_id", output_.back()["id"]},
          {"output_index", output_.size() - 1},
          {"content_index", 0}};
}

Json ResponsesWriter::Part() const {
  if (open_ == Kind::kThoughts) return {{"type", "reasoning_text"}, {"text", text_}};
  return {{"type", "output_text"}, {"text", text_}, {"annotations", Json::array()}};
}

void ResponsesWriter::Open(Kind kind, Events& events) {
  if (open_ == kind) return;
  Close(events);
  open_ = kind;
  const bool is_text = kind == Kind::kText;
  Json item = {{"id", fmt::format("{}_{}_{}", is_text ? "msg" : "rs", head_.id, output_.size())},
               {"type", is_text ? "message" : "reasoning"},
               {"status", "in_progress"},
               {"content", Json::array()}};
  if (is_text)
    item["role"] = "assistant";
  else
    item["summary"] = Json::array();
  output_.push_back(std::move(item));
  Add(events, "response.output_item.added",
      {{"output_index", output_.size() - 1}, {"item", output_.back()}});
  Json fields = Place();
  fields["part"] = Part();
  Add(events, "response.content_part.added", std::move(fields));
}

void ResponsesWriter::Close(Events& events, std::string_view status) {
  if (open_ == Kind::kNone) return;
  const bool is_text = open_ == Kind::kText;
  Json done = Place();
  done["text"] = text_;
  if (is_text) done["logprobs"] = Json::array();
  Add(events, is_text ? "response.output_text.done" : "response.reasoning_text.done",
      std::move(done));
  Json part = Place();
  part["part"] = Part();
  Add(events, "response.content_part.done", std::move(part));
  output_.back()["status"] = status;
  output_.back()["content"].push_back(Part());
  Add(events, "response.output_item.done",
      {{"output_index", output_.size() - 1}, {"item", output_.back()}});
  open_ = Kind::kNone;
  text_.clear();
}

void ResponsesWriter::Write(Kind kind, std::string_view text, Events& events) {
  if (text.empty()) return;
  Open(kind, events);
  text_ += text;
  const bool is_text = kind == Kind::kText;
  Json fields = Place();
  fields["delta"] = std::string(text);
  if (is_text) fields["logprobs"] = Json::array();
  Add(events, is_text ? "response.output_text.delta" : "response.reasoning_text.delta",
      std::move(fields));
}

void ResponsesWriter::WriteCall(const ToolCall& call, Events& events) {
  Close(events);
  const std::string id = fmt::format("fc_{}_{}", head_.id, output_.size());
  Json item = {{"id", id},           {"type", "function_call"}, {"status", "in_progress"},
               {"call_id", call.id}, {"name", call.name},       {"arguments", ""}};
  const Json place = {{"item_id", id}, {"output_index", output_.size()}};
  Add(events, "response.output_item.added", {{"output_index", output_.size()}, {"item", item}});
  Json fields = place;
  fields["delta"] = call.arguments;
  Add(events, "response.function_call_arguments.delta", std::move(fields));
  fields = place;
  fields["name"] = call.name;
  fields["arguments"] = call.arguments;
  Add(events, "response.function_call_arguments.done", std::move(fields));
  item["status"] = "completed";
  item["arguments"] = call.arguments;
  output_.push_back(item);
  Add(events, "response.output_item.done",
      {{"output_index", output_.size() - 1}, {"item", std::move(item)}});
}

ResponsesWriter::Events ResponsesWriter::Take(const MessagePart& part) {
  Events events;
  Write(Kind::kThoughts, part.thoughts, events);
  Write(Kind::kText, part.content, events);
  for (const ToolCall& call : part.calls) WriteCall(call, events);
  return events;
}

ResponsesWriter::Events ResponsesWriter::End(std::string_view finish_reason, Json usage) {
  Events events;
  if (output_.empty()) Open(Kind::kText, events);  // there is always an item
  const bool is_complete = finish_reason == "stop" || finish_reason == "tool_calls";
  status_ = is_complete ? "completed" : "incomplete";
  Close(events, status_);
  if (!is_complete)
    incomplete_details_ = {
        {"reason", finish_reason == "length" ? "max_output_tokens" : std::string(finish_reason)}};
  usage_ = std::move(usage);
  Add(events, is_complete ? "response.completed" : "response.incomplete", {{"response", Object()}});
  return events;
}

}  // namespace wideload::serve
