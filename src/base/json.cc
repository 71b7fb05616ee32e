#include "base/json.h"

#include <cmath>
#include <vector>

#include "base/json_fault.h"

namespace wideload {
namespace {

// Long values are cut so that a message stays one line.
std::string Found(const Json* value) {
  if (value == nullptr) return "missing";
  std::string text = DumpJson(*value);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

// Builds a document from the parser's events in linear time: the library's own callback parser
// looks through the whole parent at the end of each child. The members of one object may be handed
// on as they come instead of being kept.
class Builder : public nlohmann::json_sax<Json> {
 public:
  // In a text of a file; without `member` everything is kept.
  struct Streaming {
    const JsonMember* member = nullptr;
    std::string_view object;
  };
  Builder(std::string_view text, const std::string& source, const Streaming& streaming)
      : text_(text), source_(source), member_(streaming.member), streamed_(streaming.object) {}

  Json Take() { return std::move(root_); }

  bool null() override { return Scalar(nullptr); }
  bool boolean(bool value) override { return Scalar(value); }
  bool number_integer(number_integer_t value) override { return Scalar(value); }
  bool number_unsigned(number_unsigned_t value) override { return Scalar(value); }
  bool number_float(number_float_t value, const string_t&) override { return Scalar(value); }
  bool string(string_t& value) override { return Scalar(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // JSON text has none

  bool start_object(size_t) override {
    if (member_ != nullptr && stream_depth_ == 0 && IsStreamed()) stream_depth_ = open_.size() + 1;
    return Open(Json::object());
  }
  bool start_array(size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (IsStreaming()) {
      key_ = std::move(name);
      return true;
    }
    auto& members = open_.back()->get_ref<Json::object_t&>();
    const auto [place, is_new] = members.try_emplace(std::move(name));
    if (!is_new) RefuseDuplicate(place->first);
    place_ = &place->second;
    if (open_.size() == 1) top_key_ = place->first;
    return true;
  }

  bool parse_error(size_t bytes_read, const std::string&,
                   const nlohmann::detail::exception& e) override {
    RefuseBrokenJson(text_, source_, bytes_read, e);
  }

 private:
  // Whether the object that begins now is the one whose members are handed on.
  bool IsStreamed() const {
    return streamed_.empty() ? open_.empty() : open_.size() == 1 && top_key_ == streamed_;
  }
  // Whether a member of that object comes next, or is complete.
  bool IsStreaming() const { return stream_depth_ > 0 && open_.size() == stream_depth_; }

  [[noreturn]] void RefuseDuplicate(const std::string& name) const {
    const Json found = name;
    Throw(ErrorKind::kCorrupt, "{}: duplicate JSON key {}", source_, Found(&found));
  }

  // Puts a value where the next one belongs.
  Json* Put(Json&& value) {
    if (IsStreaming()) return &(value_ = std::move(value));
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_array()) {
      auto& elements = open_.back()->get_ref<Json::array_t&>();
      return &elements.emplace_back(std::move(value));
    }
    return &(*place_ = std::move(value));
  }

  bool Scalar(Json&& value) {
    Put(std::move(value));
    HandOn();
    return true;
  }

  bool Open(Json&& container) {
    if (open_.size() >= kMaxDepth)
      Throw(ErrorKind::kCorrupt, "{}: JSON is nested deeper than {}", source_, kMaxDepth);
    open_.push_back(Put(std::move(container)));
    return true;
  }

  bool Close() {
    const bool ends_streaming = IsStreaming();
    open_.pop_back();
    if (ends_streaming)
      stream_depth_ = 0;
    else
      HandOn();
    return true;
  }

  void HandOn() {
    if (IsStreaming() && !(*member_)(key_, value_)) RefuseDuplicate(key_);
  }

  static constexpr size_t kMaxDepth = 100;

  std::string_view text_;
  const std::string& source_;
  const JsonMember* member_;
  std::string_view streamed_;
  Json root_;
  std::vector<Json*> open_;  // arrays and objects around the next value, the outermost first
  Json* place_ = nullptr;    // of the next value, in an object
  std::string top_key_;      // of the document's member that is being read
  size_t stream_depth_ = 0;  // of open_, within the object whose members are handed on; 0: outside
  std::string key_;          // of the member to hand on
  Json value_;
};

Json Build(std::string_view text, const std::string& source, const Builder::Streaming& streaming) {
  Builder builder(text, source, streaming);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.Take();
}

}  // namespace

Json ParseJson(std::string_view text, const std::string& source) { return Build(text, source, {}); }

Json ParseJsonMembers(std::string_view text, const std::string& source, std::string_view object,
                      const JsonMember& member) {
  return Build(text, source, {.member = &member, .object = object});
}

Json ReadJsonFile(const std::string& path, uint64_t max_bytes) {
  return ParseJson(ReadFile(path, max_bytes), path);
}

std::string DumpJson(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

JsonFields::JsonFields(const Json& object, std::string source, std::string path)
    : object_(&object), source_(std::move(source)), path_(std::move(path)) {
  if (!object.is_object())
    Throw(ErrorKind::kCorrupt, "{}: {} is {}; it must be a JSON object", source_,
          path_.empty() ? "the document" : path_, Found(&object));
}

const Json* JsonFields::Find(std::string_view name) const {
  const auto it = object_->find(std::string(name));
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

bool JsonFields::Has(std::string_view name) const { return Find(name) != nullptr; }

std::string JsonFields::Where(std::string_view name) const {
  return fmt::format("{}: {}{}{}", source_, path_, path_.empty() ? "" : ".", name);
}

void JsonFields::Refuse(std::string_view name, std::string_view allowed) const {
  const Json* value = Find(name);
  Throw(value ? ErrorKind::kInvalid : ErrorKind::kCorrupt, "{} is {}; it must be {}", Where(name),
        Found(value), allowed);
}

const Json& JsonFields::Required(std::string_view name) const {
  const Json* value = Find(name);
  if (value == nullptr) Refuse(name, "present");
  return *value;
}

int64_t JsonFields::Int(std::string_view name, int64_t min, int64_t max) const {
  const Json* value = Find(name);
  const bool fits =
      value && value->is_number_integer() &&
      !(value->is_number_unsigned() &&
        value->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  const int64_t number = fits ? value->get<int64_t>() : 0;
  if (!fits || number < min || number > max)
    Refuse(name, fmt::format("an integer in [{}, {}]", min, max));
  return number;
}

int64_t JsonFields::IntOr(std::string_view name, int64_t fallback, int64_t min, int64_t max) const {
  return Has(name) ? Int(name, min, max) : fallback;
}

double JsonFields::Number(std::string_view name, double min, double max) const {
  const Json* value = Find(name);
  const double number = value && value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= min && number <= max))
    Refuse(name, fmt::format("a number in [{}, {}]", min, max));
  return number;
}

double JsonFields::NumberOr(std::string_view name, double fallback, double min, double max) const {
  return Has(name) ? Number(name, min, max) : fallback;
}

bool JsonFields::BoolOr(std::string_view name, bool fallback) const {
  const Json* value = Find(name);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) Refuse(name, "true or false");
  return value->get<bool>();
}

std::string JsonFields::String(std::string_view name) const {
  const Json* value = Find(name);
  if (value == nullptr || !value->is_string()) Refuse(name, "a string");
  return value->get<std::string>();
}

std::string JsonFields::StringOr(std::string_view name, std::string fallback) const {
  return Has(name) ? String(name) : std::move(fallback);
}

JsonFields JsonFields::Object(std::string_view name) const {
  const Json* value = Find(name);
  if (value == nullptr || !value->is_object()) Refuse(name, "a JSON object");
  return JsonFields(*value, source_,
                    path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name));
}

}  // namespace wideload
