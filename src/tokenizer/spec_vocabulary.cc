// The fields model and added_tokens of a tokenizer.json.
#include <algorithm>
#include <limits>
#include <unordered_map>

#include "tokenizer/spec_fields.h"
#include "tokenizer/spec_readers.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

using TokenIds = std::unordered_map<std::string, int32_t>;

// Ids may leave gaps, but a table over them must stay proportional to the file.
int64_t MaxId(size_t num_tokens) { return static_cast<int64_t>(num_tokens) * 16 + 65536; }

class VocabularyReader {
 public:
  VocabularyReader(const JsonFields& root, TokenizerSpec& spec) : root_(root), spec_(spec) {}

  void Read() {
    const JsonFields model = root_.Object("model");
    if (model.String("type") != "BPE") RefuseUnsupported(model, "type", "BPE");
    is_byte_level_ = spec_.pre_tokenizer.is_byte_level;
    ReadTokens(model.Object("vocab"));
    ReadModelOptions(model);
    ReadMerges(model);
    if (is_byte_level_) RequireAllBytes(model);
    ReadAddedTokens();
    LeaveOutSpecialTokens();
  }

 private:
  void ReadModelOptions(const JsonFields& model) {
    RefuseOtherFields(
        model, {"type", "vocab", "merges", "dropout", "unk_token", "continuing_subword_prefix",
                "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges"});
    if (model.NumberOr("dropout", 0, 0, 1) != 0) RefuseUnsupported(model, "dropout", "null or 0");
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!model.StringOr(name, "").empty()) RefuseUnsupported(model, name, "null");
    spec_.bpe.ignore_merges = model.BoolOr("ignore_merges", false);
    const std::string unknown = model.StringOr("unk_token", "");
    const bool fuse_unknown = model.BoolOr("fuse_unk", false);
    const bool has_byte_fallback = model.BoolOr("byte_fallback", false);
    // With a token for each byte nothing is unknown.
    if (is_byte_level_) return;
    spec_.bpe.symbols = BpeSymbols::kCharacters;
    spec_.bpe.fuse_unknown = fuse_unknown;
    if (!unknown.empty()) {
      const auto found = ids_.find(unknown);
      if (found == ids_.end()) model.Refuse("unk_token", "a token of model.vocab");
      spec_.bpe.unknown = found->second;
    }
    if (!has_byte_fallback) return;
    for (size_t byte = 0; byte < 256; ++byte)
      if (const auto found = ids_.find(fmt::format("<0x{:02X}>", byte)); found != ids_.end())
        spec_.bpe.fallback_of_byte[byte] = found->second;
  }

  void ReadTokens(const JsonFields& vocab) {
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
      auto bytes = is_byte_level_ ? FromByteAlphabet(text) : std::optional<std::string>(text);
      if (bytes) spec_.bpe.tokens.push_back({.bytes = std::move(*bytes), .id = id});
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
      spec_.bpe.merges.push_back({.left = left_id,
                                  .right = right_id,
                                  .merged = MergedId(left + right, where),
                                  .rank = static_cast<int32_t>(i)});
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

  // Text that is not searched for added tokens gives no special one, not even as a whole piece.
  void LeaveOutSpecialTokens() {
    std::erase_if(spec_.bpe.tokens, [&](const ByteToken& token) {
      const bool is_one_symbol = Utf8At(token.bytes, 0).length == token.bytes.size();
      return spec_.vocabulary[static_cast<size_t>(token.id)].special && !is_one_symbol;
    });
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
  bool is_byte_level_ = false;
};

}  // namespace

void ReadVocabulary(const JsonFields& root, TokenizerSpec& spec) {
  VocabularyReader(root, spec).Read();
}

}  // namespace wideload::tokenizer
