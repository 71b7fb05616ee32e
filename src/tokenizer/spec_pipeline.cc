// The fields normalizer, pre_tokenizer and decoder of a tokenizer.json.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "tokenizer/spec_fields.h"
#include "tokenizer/spec_readers.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

constexpr size_t kMaxPrependBytes = 256;

// A pattern of the form {"Regex": ...} or {"String": ...}; nothing for the empty string.
std::optional<Regex> ReadPattern(const JsonFields& fields) {
  const JsonFields pattern = fields.Object("pattern");
  if (pattern.json().size() != 1) fields.Refuse("pattern", "one of {\"Regex\"} and {\"String\"}");
  if (pattern.Has("Regex")) return Regex(pattern.String("Regex"), pattern.Where("Regex"));
  const std::string text = pattern.String("String");
  if (text.empty()) return std::nullopt;
  return Regex::Literal(text, pattern.Where("String"));
}

// How many times as long the steps of a normaliser or decoder may make a text, all together.
// Published ones put a character of three bytes in the place of a blank.
class Growth {
 public:
  // `content` in the place of at least `least_bytes` bytes. Errors: kUnsupported.
  void Replace(const JsonFields& fields, size_t least_bytes) {
    const double content = static_cast<double>(fields.String("content").size());
    times_ *=
        std::max(1.0, least_bytes > 0 ? content / static_cast<double>(least_bytes) : 1 + content);
    if (times_ > kMaxTimes)
      RefuseUnsupported(fields, "content",
                        fmt::format("what makes a text at most {} times as long", kMaxTimes));
  }

 private:
  static constexpr int kMaxTimes = 256;
  double times_ = 1;
};

void AddNormalizer(const JsonFields& fields, Normalizer& normalizer, Growth& growth) {
  using StepKind = NormalizerStep::Kind;
  const std::string type = fields.String("type");
  if (type == "Sequence") {
    RefuseOtherFields(fields, {"type", "normalizers"});
    const Json& parts = ArrayOrEmpty(fields, "normalizers");
    for (size_t i = 0; i < parts.size(); ++i)
      AddNormalizer(Element(fields, "normalizers", i), normalizer, growth);
  } else if (type == "NFC") {
    RefuseOtherFields(fields, {"type"});
    normalizer.push_back({.kind = StepKind::kNfc, .pattern = std::nullopt, .content = ""});
  } else if (type == "Prepend") {
    RefuseOtherFields(fields, {"type", "prepend"});
    if (fields.String("prepend").size() > kMaxPrependBytes)
      RefuseUnsupported(fields, "prepend", fmt::format("at most {} bytes", kMaxPrependBytes));
    normalizer.push_back(
        {.kind = StepKind::kPrepend, .pattern = std::nullopt, .content = fields.String("prepend")});
  } else if (type == "Replace") {
    RefuseOtherFields(fields, {"type", "pattern", "content"});
    const JsonFields pattern = fields.Object("pattern");
    // What a regular expression matches may be empty.
    growth.Replace(fields, pattern.Has("String") ? pattern.String("String").size() : 0);
    normalizer.push_back({.kind = StepKind::kReplace,
                          .pattern = ReadPattern(fields),
                          .content = fields.String("content")});
  } else {
    RefuseUnsupported(fields, "type", "NFC, Prepend, Replace or Sequence");
  }
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
  return {.pattern = ReadPattern(fields),
          .behavior = ReadBehavior(fields),
          .invert = fields.BoolOr("invert", false)};
}

Split ReadDigits(const JsonFields& fields) {
  RefuseOtherFields(fields, {"type", "individual_digits"});
  const bool is_individual = fields.BoolOr("individual_digits", false);
  return {.pattern = Regex(R"(\p{N})", fields.Where("type")),
          .behavior = is_individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous};
}

void ReadByteLevel(const JsonFields& fields, PreTokenizer& pre_tokenizer) {
  RefuseOtherByteLevelFields(fields);
  pre_tokenizer.is_byte_level = true;
  pre_tokenizer.add_prefix_space = fields.BoolOr("add_prefix_space", true);
  if (fields.BoolOr("use_regex", true))
    pre_tokenizer.byte_level_regex = Regex(ByteLevelPattern(), fields.Where("type"));
}

Metaspace::Prepend ReadPrepend(const JsonFields& fields) {
  static const std::map<std::string, Metaspace::Prepend> schemes = {
      {"always", Metaspace::Prepend::kAlways},
      {"first", Metaspace::Prepend::kFirst},
      {"never", Metaspace::Prepend::kNever}};
  // The older spelling of "never"; true says nothing.
  const bool is_old_never = !fields.BoolOr("add_prefix_space", true);
  const std::string scheme = fields.StringOr("prepend_scheme", is_old_never ? "never" : "always");
  const auto found = schemes.find(scheme);
  if (found == schemes.end()) fields.Refuse("prepend_scheme", "always, first or never");
  if (is_old_never && scheme != "never")
    fields.Refuse("prepend_scheme", "never where add_prefix_space is false");
  return found->second;
}

void ReadMetaspace(const JsonFields& fields, PreTokenizer& pre_tokenizer) {
  RefuseOtherFields(
      fields, {"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
  Metaspace metaspace{.replacement = fields.String("replacement"),
                      .prepend = ReadPrepend(fields),
                      .split = std::nullopt};
  if (metaspace.replacement.empty() ||
      Utf8At(metaspace.replacement, 0).length != metaspace.replacement.size())
    fields.Refuse("replacement", "one character");
  if (fields.BoolOr("split", true))
    metaspace.split = {.pattern = Regex::Literal(metaspace.replacement, fields.Where("split")),
                       .behavior = SplitBehavior::kMergedWithNext};
  pre_tokenizer.metaspace = std::move(metaspace);
}

void AddPreTokenizer(const JsonFields& fields, PreTokenizer& pre_tokenizer) {
  const std::string type = fields.String("type");
  if (pre_tokenizer.is_byte_level || pre_tokenizer.metaspace)
    RefuseUnsupported(fields, "type", "nothing after ByteLevel or Metaspace");
  if (type == "Sequence") {
    RefuseOtherFields(fields, {"type", "pretokenizers"});
    const Json& parts = ArrayOrEmpty(fields, "pretokenizers");
    for (size_t i = 0; i < parts.size(); ++i)
      AddPreTokenizer(Element(fields, "pretokenizers", i), pre_tokenizer);
  } else if (type == "Split") {
    pre_tokenizer.splits.push_back(ReadSplit(fields));
  } else if (type == "Digits") {
    pre_tokenizer.splits.push_back(ReadDigits(fields));
  } else if (type == "ByteLevel") {
    ReadByteLevel(fields, pre_tokenizer);
  } else if (type == "Metaspace") {
    ReadMetaspace(fields, pre_tokenizer);
  } else {
    RefuseUnsupported(fields, "type", "Split, Digits, ByteLevel, Metaspace or Sequence");
  }
}

// The decoders of a tokenizer.json, in order: ByteLevel; or Replace, ByteFallback, Fuse and Strip
// as SentencePiece's vocabularies need them.
class DecoderReader {
 public:
  void Add(const JsonFields& fields) {
    const std::string type = fields.String("type");
    if (type == "Sequence") {
      RefuseOtherFields(fields, {"type", "decoders"});
      const Json& parts = ArrayOrEmpty(fields, "decoders");
      for (size_t i = 0; i < parts.size(); ++i) Add(Element(fields, "decoders", i));
    } else if (type == "ByteLevel") {
      Follow(fields, Place::kByteLevel);
      RefuseOtherByteLevelFields(fields);
      decoder_.is_byte_level = true;
    } else if (type == "Replace") {
      Follow(fields, Place::kReplace);
      AddReplacement(fields);
    } else if (type == "ByteFallback") {
      Follow(fields, Place::kByteFallback);
      RefuseOtherFields(fields, {"type"});
      decoder_.has_byte_fallback = true;
    } else if (type == "Fuse") {
      Follow(fields, Place::kFuse);
      RefuseOtherFields(fields, {"type"});
    } else if (type == "Strip") {
      if (place_ != Place::kFuse) RefuseUnsupported(fields, "type", "Strip after Fuse only");
      Follow(fields, Place::kStrip);
      ReadStrip(fields);
    } else {
      RefuseUnsupported(fields, "type",
                        "ByteLevel, Replace, ByteFallback, Fuse, Strip or Sequence");
    }
  }

  const Decoder& decoder() const { return decoder_; }

 private:
  // In the order in which they may stand; ByteLevel stands alone.
  enum class Place { kBegin, kReplace, kByteFallback, kFuse, kStrip, kByteLevel };

  void Follow(const JsonFields& fields, Place place) {
    const bool may_repeat = place == Place::kReplace || place == Place::kFuse;
    if (place < place_ || (place == place_ && !may_repeat) ||
        (place == Place::kByteLevel && place_ != Place::kBegin))
      RefuseUnsupported(fields, "type",
                        "the order Replace, ByteFallback, Fuse, Strip, or ByteLevel alone");
    place_ = place;
  }

  void AddReplacement(const JsonFields& fields) {
    RefuseOtherFields(fields, {"type", "pattern", "content"});
    const JsonFields pattern = fields.Object("pattern");
    RefuseOtherFields(pattern, {"String"});
    const std::string what = pattern.String("String");
    if (what.empty()) return;
    growth_.Replace(fields, what.size());
    decoder_.replacements.emplace_back(what, fields.String("content"));
  }

  void ReadStrip(const JsonFields& fields) {
    RefuseOtherFields(fields, {"type", "content", "start", "stop"});
    decoder_.stripped = fields.String("content");
    if (decoder_.stripped.empty() ||
        Utf8At(decoder_.stripped, 0).length != decoder_.stripped.size())
      fields.Refuse("content", "one character");
    decoder_.max_stripped = fields.Int("start", 0, 1 << 20);
    if (fields.Int("stop", 0, 1 << 20) != 0) RefuseUnsupported(fields, "stop", "0");
  }

  Decoder decoder_;
  Growth growth_;
  Place place_ = Place::kBegin;
};

}  // namespace

Normalizer ReadNormalizer(const JsonFields& root) {
  Normalizer normalizer;
  Growth growth;
  if (root.Has("normalizer")) AddNormalizer(root.Object("normalizer"), normalizer, growth);
  return normalizer;
}

PreTokenizer ReadPreTokenizer(const JsonFields& root) {
  PreTokenizer pre_tokenizer;
  if (root.Has("pre_tokenizer")) AddPreTokenizer(root.Object("pre_tokenizer"), pre_tokenizer);
  return pre_tokenizer;
}

Decoder ReadDecoder(const JsonFields& root) {
  if (!root.Has("decoder")) return {.separator = " "};
  DecoderReader reader;
  reader.Add(root.Object("decoder"));
  return reader.decoder();
}

}  // namespace wideload::tokenizer
