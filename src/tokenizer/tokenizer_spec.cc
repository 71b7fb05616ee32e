#include "tokenizer/tokenizer_spec.h"

#include <algorithm>

#include "tokenizer/spec_fields.h"
#include "tokenizer/spec_readers.h"

namespace wideload::tokenizer {
namespace {

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

// The text of a field like bos_token: a string or an object with `content`; empty if absent.
std::string TokenTextOf(const JsonFields& config, const std::string& name) {
  const Json* value = config.Find(name);
  if (value == nullptr) return "";
  return value->is_object() ? config.Object(name).String("content") : config.String(name);
}

// Whether the token named `which`_token is in `ids`, as add_`which`_token says.
void ApplyAddedToken(const JsonFields& config, const std::string& which, const TokenizerSpec& spec,
                     std::vector<int32_t>& ids) {
  const std::string flag = "add_" + which + "_token";
  const std::string field = which + "_token";
  if (!config.Has(flag)) return;
  const bool is_added = config.BoolOr(flag, false);
  const std::string text = TokenTextOf(config, field);
  if (text.empty() && !is_added) return;
  const auto entry = std::find_if(
      spec.vocabulary.begin(), spec.vocabulary.end(),
      [&](const VocabularyEntry& known) { return known.exists && known.text == text; });
  if (entry == spec.vocabulary.end()) {
    if (!is_added) return;
    config.Refuse(field, "a token of the vocabulary where " + flag + " is true");
  }
  const auto id = static_cast<int32_t>(entry - spec.vocabulary.begin());
  const auto known = std::find(ids.begin(), ids.end(), id);
  if (is_added && known == ids.end()) ids.insert(which == "bos" ? ids.begin() : ids.end(), id);
  if (!is_added && known != ids.end()) ids.erase(known);
}

}  // namespace

void ApplyTokenizerConfig(const JsonFields& config, TokenizerSpec& spec) {
  ApplyAddedToken(config, "bos", spec, spec.prefix);
  ApplyAddedToken(config, "eos", spec, spec.suffix);
}

void ReadPostProcessor(const JsonFields& root, TokenizerSpec& spec) {
  PostProcessorReader(root, spec).Read();
}

TokenizerSpec ParseTokenizerJson(std::string_view text, const std::string& source) {
  const Json json = ParseJson(text, source);
  const JsonFields root(json, source);
  // truncation and padding shape batches of the library's own; texts are encoded whole here.
  RefuseOtherFields(root, {"version", "truncation", "padding", "added_tokens", "normalizer",
                           "pre_tokenizer", "post_processor", "decoder", "model"});
  if (root.StringOr("version", "1.0") != "1.0") RefuseUnsupported(root, "version", "1.0");
  TokenizerSpec spec;
  spec.source = source;
  spec.normalizer = ReadNormalizer(root);
  spec.pre_tokenizer = ReadPreTokenizer(root);
  spec.decoder = ReadDecoder(root);
  ReadVocabulary(root, spec);
  ReadPostProcessor(root, spec);
  return spec;
}

}  // namespace wideload::tokenizer
