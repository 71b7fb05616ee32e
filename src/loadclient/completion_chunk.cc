#include "loadclient/completion_chunk.h"

#include "base/error.h"
#include "base/json.h"

namespace wideload::loadclient {
namespace {

constexpr size_t kMaxEventBytes = size_t{16} << 20;
constexpr size_t kMaxNameBytes = 80;
constexpr const char* kSource = "the server's event";

// Of a list, its first element; null when it is no list or empty.
const Json* FirstOf(const Json* list) {
  return list != nullptr && list->is_array() && !list->empty() ? &list->front() : nullptr;
}

const Json* Member(const Json* object, const char* name) {
  if (object == nullptr || !object->is_object()) return nullptr;
  const auto found = object->find(name);
  return found != object->end() ? &*found : nullptr;
}

std::string TextOf(const Json* value) {
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

int64_t CountOf(const Json* usage, const char* name) {
  const Json* count = Member(usage, name);
  if (count == nullptr || !count->is_number_unsigned()) return -1;
  return static_cast<int64_t>(std::min<uint64_t>(count->get<uint64_t>(), 1U << 30));
}

// The short name of an error; some servers have a number as code, or no envelope.
std::string NameOfError(const Json& error) {
  if (error.is_string()) return TextOf(&error).substr(0, kMaxNameBytes);
  for (const char* field : {"code", "type", "message"})
    if (std::string name = TextOf(Member(&error, field)); !name.empty())
      return name.substr(0, kMaxNameBytes);
  return "error";
}

}  // namespace

void EventReader::Feed(std::string_view bytes,
                       const std::function<void(std::string_view data)>& take) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    line_ += bytes.substr(0, end);
    if (line_.size() + data_.size() > kMaxEventBytes)
      Throw(ErrorKind::kCorrupt, "{} has more than {} bytes", kSource, kMaxEventBytes);
    if (end == std::string_view::npos) return;
    bytes.remove_prefix(end + 1);
    if (line_.ends_with('\r')) line_.pop_back();
    const std::string line = std::exchange(line_, {});
    TakeLine(line, take);
  }
}

void EventReader::TakeLine(std::string_view line,
                           const std::function<void(std::string_view data)>& take) {
  constexpr std::string_view kData = "data:";
  if (line.empty()) {
    const std::string data = std::exchange(data_, {});
    if (std::exchange(has_data_, false)) take(data);
  } else if (line.starts_with(kData)) {
    line.remove_prefix(kData.size());
    if (line.starts_with(' ')) line.remove_prefix(1);
    if (std::exchange(has_data_, true)) data_ += '\n';
    data_ += line;
  }
}

Chunk ParseChunk(std::string_view data) {
  const Json json = ParseJson(data, kSource);
  if (!json.is_object()) Throw(ErrorKind::kCorrupt, "{} is no JSON object", kSource);
  Chunk chunk;
  if (const Json* error = Member(&json, "error"); error != nullptr && !error->is_null())
    chunk.error = NameOfError(*error);
  const Json* choice = FirstOf(Member(&json, "choices"));
  chunk.has_choice = choice != nullptr;
  const Json* delta = Member(choice, "delta");
  chunk.text = TextOf(Member(choice, "text")) + TextOf(Member(delta, "reasoning_content")) +
               TextOf(Member(delta, "content"));
  const Json* usage = Member(&json, "usage");
  chunk.prompt_tokens = CountOf(usage, "prompt_tokens");
  chunk.completion_tokens = CountOf(usage, "completion_tokens");
  return chunk;
}

std::string ErrorName(int status, std::string_view body) {
  std::string name = std::to_string(status);
  try {
    const Json json = ParseJson(body, kSource);
    if (const Json* error = Member(&json, "error")) name += " " + NameOfError(*error);
  } catch (const Error&) {  // no JSON: the status says it
  }
  return name;
}

}  // namespace wideload::loadclient
