#include "jinja/json_value.h"

#include "base/json.h"
#include "base/json_fault.h"

namespace wideload::jinja {
namespace {

constexpr size_t kMaxDepth = 100;

// Takes what the parser meets, in order.
class ValueBuilder : public Json::json_sax_t {
 public:
  ValueBuilder(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  Value Take() { return std::move(result_); }

  bool null() override { return Put({None{}}); }
  bool boolean(bool value) override { return Put({value}); }
  bool number_integer(number_integer_t value) override { return Put({int64_t{value}}); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return Put({static_cast<int64_t>(value)});
    return PutBig(fmt::to_string(value));
  }
  bool number_float(number_float_t value, const std::string& text) override {
    // An integer that no 64 bits hold arrives as a float, too.
    return text.find_first_of(".eE") == std::string::npos ? PutBig(text) : Put({value});
  }
  bool string(std::string& value) override { return Put(Value::Text(std::move(value), true)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(true); }
  bool start_array(size_t) override { return Open(false); }
  bool key(std::string& name) override {
    Frame& frame = open_.back();
    if (frame.dict.Find(name) != nullptr)
      Throw(ErrorKind::kCorrupt, "{}: duplicate JSON key \"{}\"", source_, name.substr(0, 80));
    frame.key = Value::Text(std::move(name), true);
    return true;
  }
  bool end_object() override {
    Value dict{std::make_shared<const Dict>(std::move(open_.back().dict))};
    open_.pop_back();
    return Put(std::move(dict));
  }
  bool end_array() override {
    Value list = MakeList(std::move(open_.back().items));
    open_.pop_back();
    return Put(std::move(list));
  }
  bool parse_error(size_t bytes_read, const std::string&, const Json::exception& error) override {
    RefuseBrokenJson(text_, source_, bytes_read, error);
  }

 private:
  struct Frame {
    bool is_object = false;
    Dict dict;
    Value key;
    std::vector<Value> items;
  };

  bool Open(bool is_object) {
    if (open_.size() == kMaxDepth)
      Throw(ErrorKind::kCorrupt, "{}: JSON is nested deeper than {}", source_, kMaxDepth);
    open_.emplace_back();
    open_.back().is_object = is_object;
    return true;
  }
  bool PutBig(std::string digits) {
    return Put({std::make_shared<const BigInteger>(BigInteger{std::move(digits)})});
  }
  bool Put(Value value) {
    if (open_.empty())
      result_ = std::move(value);
    else if (open_.back().is_object)
      open_.back().dict.Set(std::move(open_.back().key), std::move(value));
    else
      open_.back().items.push_back(std::move(value));
    return true;
  }

  std::string_view text_;
  const std::string& source_;
  std::vector<Frame> open_;
  Value result_;
};

}  // namespace

Value ParseJsonValue(std::string_view text, const std::string& source) {
  ValueBuilder builder(text, source);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.Take();
}

}  // namespace wideload::jinja
