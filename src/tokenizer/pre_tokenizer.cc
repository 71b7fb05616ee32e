#include "tokenizer/pre_tokenizer.h"

#include <algorithm>

namespace wideload::tokenizer {
namespace {

struct Part {
  TextRange range;
  bool is_match;
};

std::vector<Part> Parts(const Split& split, std::string_view text, RegexScratch& scratch) {
  std::vector<Part> parts;
  size_t end = 0;
  if (split.pattern) {
    for (const TextRange& match : split.pattern->FindAll(text, scratch)) {
      if (match.begin != end) parts.push_back({{end, match.begin}, split.invert});
      parts.push_back({match, !split.invert});
      end = match.end;
    }
  }
  if (end != text.size()) parts.push_back({{end, text.size()}, split.invert});
  return parts;
}

// The matches and what lies between them, without empty ones.
std::vector<TextRange> Isolated(const Regex& pattern, std::string_view text,
                                RegexScratch& scratch) {
  const std::vector<TextRange> matches = pattern.FindAll(text, scratch);
  std::vector<TextRange> ranges;
  ranges.reserve(matches.size());
  size_t end = 0;
  for (const TextRange& match : matches) {
    if (match.begin != end) ranges.push_back({end, match.begin});
    if (match.begin != match.end) ranges.push_back(match);
    end = match.end;
  }
  if (end != text.size()) ranges.push_back({end, text.size()});
  return ranges;
}

// A match joins the part before it; the second of two neighbouring matches stands alone.
std::vector<Part> MergeWithPrevious(const std::vector<Part>& parts) {
  std::vector<Part> merged;
  bool was_match = false;
  for (const Part& part : parts) {
    if (part.is_match && !was_match && !merged.empty())
      merged.back().range.end = part.range.end;
    else
      merged.push_back(part);
    was_match = part.is_match;
  }
  return merged;
}

std::vector<Part> MergeWithNext(const std::vector<Part>& parts) {
  std::vector<Part> merged;  // last first
  bool was_match = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->is_match && !was_match && !merged.empty())
      merged.back().range.begin = part->range.begin;
    else
      merged.push_back(*part);
    was_match = part->is_match;
  }
  std::reverse(merged.begin(), merged.end());
  return merged;
}

std::vector<Part> MergeEqual(const std::vector<Part>& parts) {
  std::vector<Part> merged;
  bool was_match = false;
  for (const Part& part : parts) {
    if (part.is_match == was_match && !merged.empty())
      merged.back().range.end = part.range.end;
    else
      merged.push_back(part);
    was_match = part.is_match;
  }
  return merged;
}

}  // namespace

std::vector<TextRange> Apply(const Split& split, std::string_view text, RegexScratch& scratch) {
  if (split.pattern && split.behavior == SplitBehavior::kIsolated)
    return Isolated(*split.pattern, text, scratch);
  std::vector<Part> parts = Parts(split, text, scratch);
  if (split.behavior == SplitBehavior::kMergedWithPrevious) parts = MergeWithPrevious(parts);
  if (split.behavior == SplitBehavior::kMergedWithNext) parts = MergeWithNext(parts);
  if (split.behavior == SplitBehavior::kContiguous) parts = MergeEqual(parts);
  std::vector<TextRange> ranges;
  ranges.reserve(parts.size());
  for (const Part& part : parts) {
    const bool is_removed = part.is_match && split.behavior == SplitBehavior::kRemoved;
    if (!is_removed && part.range.begin != part.range.end) ranges.push_back(part.range);
  }
  return ranges;
}

std::string WithMetaspace(const Metaspace& metaspace, std::string_view piece, bool is_first) {
  std::string result;
  result.reserve(piece.size() + metaspace.replacement.size());
  for (const char c : piece) {
    if (c == ' ')
      result += metaspace.replacement;
    else
      result += c;
  }
  const bool wanted = metaspace.prepend == Metaspace::Prepend::kAlways ||
                      (metaspace.prepend == Metaspace::Prepend::kFirst && is_first);
  if (wanted && !result.starts_with(metaspace.replacement)) result.insert(0, metaspace.replacement);
  return result;
}

std::string_view ByteLevelPattern() {
  return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
}

}  // namespace wideload::tokenizer
