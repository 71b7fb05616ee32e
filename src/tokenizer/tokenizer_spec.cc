#include "tokenizer/tokenizer_spec.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>

#include "tokenizer/spec_fields.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

using TokenIds = std::unordered_map<std::string, int32_t>;

// Ids may leave gaps, but a table over them must stay proportional to the file.
int64_t MaxId(size_t num_tokens) { return static_cast<int64_t>(num_tokens) * 16 + 65536; }

Normalizer ReadNormalizer(const JsonFields& root) {
  if (!root.Has("normalizer")) return Normalizer::kNone;
  const JsonFields fields = root.Object("normalizer");
  const std::string type = fields.String("type");
  if (type == "NFC") {
    RefuseOtherFields(fields, {"type"});
    return Normalizer::kNfc;
  }
  if (type != "Sequence") RefuseUnsupported(fields, "type", "NFC or Sequence");
  RefuseOtherFields(fields, {"type", "normalizers"});
  Normalizer result = Normalizer::kNone;
  const Json& parts = ArrayOrEmpty(fields, "normalizers");
  for (size_t i = 0; i < parts.size(); ++i) {
    const JsonFields part = Element(fields, "normalizers", i);
    if (part.String("type") != "NFC") RefuseUnsupported(part, "type", "NFC");
    RefuseOtherFields(part, {"type"});
    result = Normalizer::kNfc;
  }
  return result;
}

SplitBehavior ReadBehavior(const JsonFields& fields) {
  static const std::map<std::string, SplitBehavior> behaviors = {
      {"Isolated", SplitBehavior::kIsolated},
      {"Removed", SplitBehavior::kRemoved},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  const auto found = behaviors.find(fields.String("behavior"));
  if (found == behaviors.end())
    fields.Refuse("behavior",
                  "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
  return found->second;
}

Split ReadSplit(const JsonFields& fields) {
  RefuseOtherFields(fields, {"type", "pattern", "behavior", "invert"});
  Split split{.pattern = std::nullopt,
              .behavior = ReadBehavior(fields),
              .invert = fields.BoolOr("invert", false)};
  const JsonFields pattern = fields.Object("pattern");
  if (pattern.json().size() != 1) fields.Refuse("pattern", "one of {\"Regex\"} and {\"String\"}");
  if (pattern.Has("Regex")) {
    split.pattern = Regex(pattern.String("Regex"), pattern.Where("Regex"));
  } else {
    const std::string text = pattern.String("String");
    if (!text.empty()) split.pattern = Regex::Literal(text, pattern.Where("String"));
  }
  return split;
}

Split ReadDigits(const JsonFields& fields) {
  RefuseOtherFields(fields, {"type", "individual_digits"});
  const bool is_individual = fields.BoolOr("individual_digits", false);
  return {.pattern = Regex(R"(\p{N})", fields.Where("type")),
          .behavior = is_individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous};
}

void RefuseOtherByteLevelFields(const JsonFields& fields) {
  // trim_offsets changes positions in the text, which are not reported here.
  RefuseOtherFields(fields, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  fields.BoolOr("trim_offsets", true);
}

void ReadByteLevel(const JsonFields& fields, PreTokenizer& pre_tokenizer) {
  RefuseOtherByteLevelFields(fields);
  pre_tokenizer.add_prefix_space = fields.BoolOr("add_prefix_space", true);
  if (fields.BoolOr("use_regex", true))
    pre_tokenizer.byte_level_regex = Regex(ByteLevelPattern(), fields.Where("type"));
}

PreTokenizer ReadPreTokenizer(const JsonFields& root) {
  PreTokenizer pre_tokenizer;
  if (!root.Has("pre_tokenizer"))
    RefuseUnsupported(root, "pre_tokenizer", "ByteLevel, or a Sequence that ends with ByteLevel");
  const JsonFields fields = root.Object("pre_tokenizer");
  const std::string type = fields.String("type");
  if (type == "ByteLevel") {
    ReadByteLevel(fields, pre_tokenizer);
    return pre_tokenizer;
  }
  if (type != "Sequence")
    RefuseUnsupported(fields, "type", "ByteLevel, or a Sequence that ends with ByteLevel");
  RefuseOtherFields(fields, {"type", "pretokenizers"});
  const Json& parts = ArrayOrEmpty(fields, "pretokenizers");
  bool has_byte_level = false;
  for (size_t i = 0; i < parts.size(); ++i) {
    const JsonFields part = Element(fields, "pretokenizers", i);
    const std::string part_type = part.String("type");
    if (has_byte_level) RefuseUnsupported(part, "type", "nothing after ByteLevel");
    if (part_type == "Split") {
      pre_tokenizer.splits.push_back(ReadSplit(part));
    } else if (part_type == "Digits") {
      pre_tokenizer.splits.push_back(ReadDigits(part));
    } else if (part_type == "ByteLevel") {
      ReadByteLevel(part, pre_tokenizer);
      has_byte_level = true;
    } else {
      RefuseUnsupported(part, "type", "Split, Digits or ByteLevel");
    }
  }
  if (!has_byte_level)
    RefuseUnsupported(fields, "pretokenizers", "a list that ends with ByteLevel");
  return pre_tokenizer;
}

Decoder ReadDecoder(const JsonFields& root) {
  if (!root.Has("decoder")) return Decoder::kSpaced;
  const JsonFields fields = root.Object("decoder");
  if (fields.String("type") == "ByteLevel") {
    RefuseOtherByteLevelFields(fields);
    return Decoder::kByteLevel;
  }
  if (fields.String("type") != "Sequence")
    RefuseUnsupported(fields, "type", "ByteLevel or Sequence");
  RefuseOtherFields(fields, {"type", "decoders"});
  const Json& parts = ArrayOrEmpty(fields, "decoders");
  if (parts.empty()) return Decoder::kJoined;
  if (parts.size() > 1) RefuseUnsupported(fields, "decoders", "at most one ByteLevel");
  const JsonFields part = Element(fields, "decoders", 0);
  if (part.String("type") != "ByteLevel") RefuseUnsupported(part, "type", "ByteLevel");
  RefuseOtherByteLevelFields(part);
  return Decoder::kByteLevel;
}

class VocabularyReader {
 public:
  VocabularyReader(const JsonFields& root, TokenizerSpec& spec) : root_(root), spec_(spec) {}

  void Read() {
    const JsonFields model = root_.Object("model");
    if (model.String("type") != "BPE") RefuseUnsupported(model, "type", "BPE");
    ReadVocabulary(model.Object("vocab"));
    ReadAddedTokens();
    ReadModelOptions(model);
    ReadMerges(model);
    RequireAllBytes(model);
  }

 private:
  void ReadModelOptions(const JsonFields& model) {
    RefuseOtherFields(
        model, {"type", "vocab", "merges", "dropout", "unk_token", "continuing_subword_prefix",
                "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges"});
    if (model.NumberOr("dropout", 0, 0, 1) != 0) RefuseUnsupported(model, "dropout", "null or 0");
    for (const char* name : {"unk_token", "continuing_subword_prefix", "end_of_word_suffix"})
      if (!model.StringOr(name, "").empty()) RefuseUnsupported(model, name, "null");
    for (const char* name : {"fuse_unk", "byte_fallback"})
      if (model.BoolOr(name, false)) RefuseUnsupported(model, name, "false");
    spec_.bpe.ignore_merges = model.BoolOr("ignore_merges", false);
  }

  void ReadVocabulary(const JsonFields& vocab) {
    const int64_t max_id = MaxId(vocab.json().size() + ArrayOrEmpty(root_, "added_tokens").size());
    ids_.reserve(vocab.json().size());
    for (const auto& [text, value] : vocab.json().items()) {
      const auto id = static_cast<int32_t>(vocab.Int(text, 0, max_id));
      VocabularyEntry& entry = EntryOf(id);
      if (entry.exists)
        Throw(ErrorKind::kCorrupt, "{} is {}, the id of {} too; ids must differ", vocab.Where(text),
              id, entry.text);
      entry = {.text = text, .exists = true};
      ids_.emplace(text, id);
      if (auto bytes = FromByteAlphabet(text))
        spec_.bpe.tokens.push_back({.bytes = std::move(*bytes), .id = id});
    }
  }

  void ReadAddedTokens() {
    const Json& list = ArrayOrEmpty(root_, "added_tokens");
    const int64_t max_id = MaxId(ids_.size() + list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      const JsonFields fields = Element(root_, "added_tokens", i);
      RefuseOtherFields(
          fields, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
      AddedToken token{.content = fields.String("content"),
                       .id = static_cast<int32_t>(fields.Int("id", 0, max_id)),
                       .special = fields.BoolOr("special", false),
                       .lstrip = fields.BoolOr("lstrip", false),
                       .rstrip = fields.BoolOr("rstrip", false),
                       .single_word = fields.BoolOr("single_word", false),
                       .normalized = fields.BoolOr("normalized", true)};
      if (token.content.empty()) fields.Refuse("content", "a string that is not empty");
      AddToken(fields, std::move(token));
    }
  }

  void AddToken(const JsonFields& fields, AddedToken token) {
    const auto [known, is_new] = ids_.try_emplace(token.content, token.id);
    VocabularyEntry& entry = EntryOf(token.id);
    if (known->second != token.id)
      fields.Refuse("id", fmt::format("{}, the id that its content has elsewhere", known->second));
    if (is_new && entry.exists) fields.Refuse("id", "an id that no other token has");
    if (entry.added) fields.Refuse("content", "a content that no other added token has");
    entry = {.text = token.content, .exists = true, .special = token.special, .added = true};
    spec_.added_tokens.push_back(std::move(token));
  }

  void ReadMerges(const JsonFields& model) {
    const Json& list = ArrayOrEmpty(model, "merges");
    if (list.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
      model.Refuse("merges", "a list of less than 2^31");
    spec_.bpe.merges.reserve(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      const auto where = [&] { return fmt::format("{}[{}]", model.Where("merges"), i); };
      const auto [left, right] = MergeTexts(list[i], where);
      const int32_t left_id = MergedId(left, where);
      const int32_t right_id = MergedId(right, where);
      spec_.bpe.merges.push_back({left_id, right_id, MergedId(left + right, where)});
    }
  }

  template <class Where>
  static std::pair<std::string, std::string> MergeTexts(const Json& merge, const Where& where) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
      return {merge[0].get<std::string>(), merge[1].get<std::string>()};
    if (merge.is_string()) {
      const auto text = merge.get<std::string>();
      if (std::count(text.begin(), text.end(), ' ') == 1) {
        const size_t space = text.find(' ');
        return {text.substr(0, space), text.substr(space + 1)};
      }
    }
    Throw(ErrorKind::kCorrupt, "{} is {}; it must be \"left right\" or [\"left\", \"right\"]",
          where(), DumpJson(merge).substr(0, 80));
  }

  template <class Where>
  int32_t MergedId(const std::string& text, const Where& where) const {
    const auto found = ids_.find(text);
    if (found == ids_.end())
      Throw(ErrorKind::kCorrupt, "{} needs the token \"{}\"; it must be in model.vocab", where(),
            text);
    return found->second;
  }

  // With all of them no text is unknown to the model.
  void RequireAllBytes(const JsonFields& model) const {
    for (int byte = 0; byte < 256; ++byte) {
      const bool never_in_utf8 = byte == 0xC0 || byte == 0xC1 || byte > 0xF4;
      const std::string text = ToByteAlphabet(std::string(1, static_cast<char>(byte)));
      if (!never_in_utf8 && ids_.count(text) == 0)
        Throw(ErrorKind::kUnsupported,
              "{} has no token \"{}\" for byte 0x{:02X}; it must have one for every byte",
              model.Where("vocab"), text, byte);
    }
  }

  VocabularyEntry& EntryOf(int32_t id) {
    if (static_cast<size_t>(id) >= spec_.vocabulary.size())
      spec_.vocabulary.resize(static_cast<size_t>(id) + 1);
    return spec_.vocabulary[static_cast<size_t>(id)];
  }

  const JsonFields& root_;
  TokenizerSpec& spec_;
  TokenIds ids_;
};

class PostProcessorReader {
 public:
  PostProcessorReader(const JsonFields& root, TokenizerSpec& spec) : root_(root), spec_(spec) {}

  void Read() {
    if (!root_.Has("post_processor")) return;
    const JsonFields fields = root_.Object("post_processor");
    if (fields.String("type") != "Sequence") return ReadOne(fields);
    RefuseOtherFields(fields, {"type", "processors"});
    const Json& parts = ArrayOrEmpty(fields, "processors");
    for (size_t i = 0; i < parts.size(); ++i) ReadOne(Element(fields, "processors", i));
  }

 private:
  void ReadOne(const JsonFields& fields) {
    const std::string type = fields.String("type");
    // ByteLevel changes positions only.
    if (type == "ByteLevel") return RefuseOtherByteLevelFields(fields);
    if (type != "TemplateProcessing")
      RefuseUnsupported(fields, "type", "ByteLevel, TemplateProcessing or Sequence");
    if (has_template_) RefuseUnsupported(fields, "type", "one TemplateProcessing");
    has_template_ = true;
    RefuseOtherFields(fields, {"type", "single", "pair", "special_tokens"});
    ReadTemplate(fields);
  }

  // Only the template of a single text is used: pairs of texts do not occur here.
  void ReadTemplate(const JsonFields& fields) {
    const Json& parts = ArrayOrEmpty(fields, "single");
    bool has_text = false;
    for (size_t i = 0; i < parts.size(); ++i) {
      const JsonFields part = Element(fields, "single", i);
      RefuseOtherFields(part, {"Sequence", "SpecialToken"});
      if (part.Has("Sequence")) {
        if (has_text) RefuseUnsupported(part, "Sequence", "one Sequence");
        has_text = true;
      } else {
        AppendIds(fields.Object("special_tokens"), part.Object("SpecialToken").String("id"),
                  has_text ? spec_.suffix : spec_.prefix);
      }
    }
    if (!has_text) fields.Refuse("single", "a list with one Sequence");
  }

  void AppendIds(const JsonFields& tokens, const std::string& name, std::vector<int32_t>& ids) {
    const JsonFields token = tokens.Object(name);
    const Json& list = ArrayOrEmpty(token, "ids");
    for (const Json& value : list) {
      const bool is_id = value.is_number_unsigned() &&
                         value.get<uint64_t>() < spec_.vocabulary.size() &&
                         spec_.vocabulary[value.get<size_t>()].exists;
      if (!is_id) token.Refuse("ids", "a list of ids of the vocabulary");
      ids.push_back(value.get<int32_t>());
    }
  }

  const JsonFields& root_;
  TokenizerSpec& spec_;
  bool has_template_ = false;
};

}  // namespace

TokenizerSpec ParseTokenizerJson(std::string_view text, const std::string& source) {
  const Json json = ParseJson(text, source);
  const JsonFields root(json, source);
  RefuseOtherFields(root, {"version", "truncation", "padding", "added_tokens", "normalizer",
                           "pre_tokenizer", "post_processor", "decoder", "model"});
  if (root.StringOr("version", "1.0") != "1.0") RefuseUnsupported(root, "version", "1.0");
  for (const char* name : {"truncation", "padding"})
    if (root.Has(name)) RefuseUnsupported(root, name, "null");
  TokenizerSpec spec;
  spec.source = source;
  spec.normalizer = ReadNormalizer(root);
  spec.pre_tokenizer = ReadPreTokenizer(root);
  spec.decoder = ReadDecoder(root);
  VocabularyReader(root, spec).Read();
  PostProcessorReader(root, spec).Read();
  return spec;
}

}  // namespace wideload::tokenizer
