#include "config/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <map>
#include <sstream>

#include "base/error.h"

namespace wideload::config {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 20;
constexpr size_t kMaxLevels = 16;
constexpr size_t kMaxValues = 20'000;
constexpr size_t kMaxKeyLetters = 200;

// Takes the parser's events one by one: duplicates are seen, and nothing is built that is larger
// than the text.
class SettingsHandler : public YAML::EventHandler {
 public:
  explicit SettingsHandler(std::string_view source) : source_(source) {}

  std::vector<YamlSetting> Finish() { return std::move(settings_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (has_document_)
      Throw(ErrorKind::kCorrupt, "{}: holds more than one document; one is allowed", Where(mark));
    has_document_ = true;
  }
  void OnDocumentEnd() override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Throw(ErrorKind::kCorrupt, "{}: an alias (*name) is not allowed here", Where(mark));
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    RefuseExtras(mark, "", anchor);
    Value(mark, YamlSetting::Kind::kNull, "");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    RefuseExtras(mark, tag, anchor);
    const bool is_null = tag != "!" && (value == "null" || value == "~" || value.empty());
    Value(mark, is_null ? YamlSetting::Kind::kNull : YamlSetting::Kind::kScalar, value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Enter(mark, tag, anchor);
    if (levels_.empty())
      Throw(ErrorKind::kCorrupt, "{}: found a list; a map of settings is allowed", Where(mark));
    if (list_levels_ == 0)
      list_ = Begin(mark, YamlSetting::Kind::kList);
    else
      Separate();
    list_.text += '[';
    ++list_levels_;
  }
  void OnSequenceEnd() override { LeaveList(']'); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Enter(mark, tag, anchor);
    if (list_levels_ > 0) {  // only its text is kept
      Separate();
      list_.text += '{';
      ++list_levels_;
      return;
    }
    Level level;
    if (!levels_.empty()) level.own = Begin(mark, YamlSetting::Kind::kEmptyMap);
    levels_.push_back(std::move(level));
  }
  void OnMapEnd() override {
    if (list_levels_ > 0) return LeaveList('}');
    const Level level = std::move(levels_.back());
    levels_.pop_back();
    if (level.lines.empty() && !level.own.key.empty()) Add(level.own);
  }

 private:
  struct Level {
    YamlSetting own;                   // the map's, should it be empty; no key: the document's
    std::map<std::string, int> lines;  // of the keys so far
    std::string key;                   // whose value comes next
    bool has_key = false;
  };

  std::string Where(const YAML::Mark& mark) const {
    return fmt::format("{}:{}", source_, mark.line + 1);
  }

  void RefuseExtras(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) const {
    if (anchor != 0)
      Throw(ErrorKind::kCorrupt, "{}: an anchor (&name) is not allowed here", Where(mark));
    if (!tag.empty() && tag != "?" && tag != "!")
      Throw(ErrorKind::kCorrupt, "{}: a tag ({}) is not allowed here", Where(mark),
            tag.substr(0, 40));
  }

  void Enter(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) const {
    RefuseExtras(mark, tag, anchor);
    if (levels_.size() + list_levels_ >= kMaxLevels)
      Throw(ErrorKind::kCorrupt, "{}: has more than {} levels", Where(mark), kMaxLevels);
  }

  // The setting whose value begins here.
  YamlSetting Begin(const YAML::Mark& mark, YamlSetting::Kind kind) {
    Level& level = levels_.back();
    if (!level.has_key)
      Throw(ErrorKind::kCorrupt, "{}: a list or a map is no key; a word is allowed", Where(mark));
    level.has_key = false;
    return {.key = WholeKey(level.key), .kind = kind, .line = level.lines.at(level.key)};
  }

  std::string WholeKey(const std::string& key) const {
    const std::string& above = levels_.back().own.key;
    return above.empty() ? key : above + "." + key;
  }

  void Value(const YAML::Mark& mark, YamlSetting::Kind kind, const std::string& text) {
    if (list_levels_ > 0) {
      Separate();
      list_.text += kind == YamlSetting::Kind::kNull ? "null" : text;
      return;
    }
    if (levels_.empty()) {
      if (kind == YamlSetting::Kind::kNull) return;  // an empty document
      Throw(ErrorKind::kCorrupt, "{}: found \"{}\"; a map of settings is allowed", Where(mark),
            text.substr(0, 40));
    }
    if (!levels_.back().has_key) return Key(mark, text);
    YamlSetting setting = Begin(mark, kind);
    if (kind == YamlSetting::Kind::kScalar) setting.text = text;
    Add(std::move(setting));
  }

  void Key(const YAML::Mark& mark, const std::string& key) {
    Level& level = levels_.back();
    if (key.empty() || key.size() > kMaxKeyLetters)
      Throw(ErrorKind::kInvalid, "{}: a key of {} letters; 1 to {} are allowed", Where(mark),
            key.size(), kMaxKeyLetters);
    if (key.find('.') != std::string::npos)
      Throw(ErrorKind::kInvalid, "{}: unknown key \"{}\"; no key holds a dot", Where(mark),
            WholeKey(key));
    const auto [at, is_new] = level.lines.emplace(key, mark.line + 1);
    if (!is_new)
      Throw(ErrorKind::kInvalid, "{}: duplicate key \"{}\"; it is already set in line {}",
            Where(mark), WholeKey(key), at->second);
    level.key = key;
    level.has_key = true;
  }

  void Separate() {
    if (!list_.text.empty() && list_.text.back() != '[' && list_.text.back() != '{')
      list_.text += ", ";
  }

  void LeaveList(char end) {
    list_.text += end;
    if (--list_levels_ == 0) Add(std::move(list_));
  }

  void Add(YamlSetting setting) {
    if (settings_.size() == kMaxValues)
      Throw(ErrorKind::kCorrupt, "{}:{}: has more than {} values", source_, setting.line,
            kMaxValues);
    settings_.push_back(std::move(setting));
  }

  std::string_view source_;
  bool has_document_ = false;
  std::vector<Level> levels_;  // the maps that are open
  YamlSetting list_;           // the outermost list that is open
  size_t list_levels_ = 0;
  std::vector<YamlSetting> settings_;
};

}  // namespace

std::vector<YamlSetting> ParseYamlSettings(std::string_view text, std::string_view source) {
  if (text.size() > kMaxBytes)
    Throw(ErrorKind::kCorrupt, "{}: has {} bytes; at most {} are allowed", source, text.size(),
          kMaxBytes);
  SettingsHandler handler(source);
  std::istringstream stream{std::string(text)};
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(handler)) {
    }
  } catch (const YAML::Exception& e) {
    Throw(ErrorKind::kCorrupt, "{}:{}: not YAML: {}", source, e.mark.line + 1, e.msg);
  }
  return handler.Finish();
}

}  // namespace wideload::config
