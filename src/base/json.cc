#include "base/json.h"

#include <cmath>
#include <set>
#include <vector>

#include "base/file.h"

namespace wideload {
namespace {

constexpr int kMaxDepth = 100;

// Long values are cut so that a message stays one line.
std::string Found(const Json* value) {
  if (value == nullptr) return "missing";
  std::string text = DumpJson(*value);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

}  // namespace

Json ParseJson(std::string_view text, const std::string& source) {
  std::vector<std::set<std::string>> keys;
  const auto refuse_duplicates = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth)
      Throw(ErrorKind::kCorrupt, "{}: JSON is nested deeper than {}", source, kMaxDepth);
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second)
      Throw(ErrorKind::kCorrupt, "{}: duplicate JSON key {}", source, Found(&parsed));
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), refuse_duplicates);
  } catch (const Json::exception& e) {
    Throw(ErrorKind::kCorrupt, "{}: not valid JSON: {}", source, e.what());
  }
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
